"""Executions in SQL, on SQLite and PostgreSQL: each event once, found by what people ask for."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from dataclasses import replace

import pytest
from sqlalchemy import inspect

from conventions.records import executions
from conventions.records.journal import JournalEntry
from conventions.storage.database import Database
from tests.databases import database  # noqa: F401  # a fixture
from tests.failures import failure


def record(database: Database, *entries: JournalEntry) -> set[str]:
    """Record entries in one transaction; returns the ids of those that are new."""
    with database.session() as session:
        return executions.record(session, entries)


def found(database: Database, kind: str | None = None, limit: int = 100) -> list[str]:
    """The message ids of what ended last."""
    with database.session(read_only=True) as session:
        return [row.message_id for row in executions.latest(session, limit, kind=kind)]


def test_an_event_is_stored_once(database: Database) -> None:
    """It is told which ones were new; within a batch, the first reading counts."""
    one, two = failure("m1"), failure("m2")
    assert record(database, one, replace(one, fence=9)) == {one.event.id}
    assert record(database, one, two, two) == {two.event.id}
    assert record(database) == set()
    with database.session() as session:
        assert [row.fence for row in executions.of_message(session, "m1")] == [0]


def test_a_batch_that_is_rolled_back_is_not_there(database: Database) -> None:
    """Executions and letters are of one transaction."""

    def fail() -> None:
        with database.session() as session:
            executions.record(session, [failure()])
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert found(database) == []


def test_the_latest_ones(database: Database) -> None:
    """The latest end first; all, or those of a kind."""
    record(database, failure("a"), failure("b", kind="retried"), failure("c"))
    assert found(database) == ["c", "b", "a"]
    assert found(database, limit=1) == ["c"]
    assert found(database, "retried") == ["b"]
    assert found(database, "dead", limit=1) == ["c"]


def test_a_message_s_executions_are_in_their_order(database: Database) -> None:
    """By redrive, attempt and claim, whatever the order in which they were recorded."""
    order = [(1, 1, 1), (0, 2, 5), (0, 1, 3), (0, 2, 4)]
    record(database, *(failure(generation=g, attempts=a, fence=f) for g, a, f in order), failure("m2"))
    with database.session() as session:
        rows = executions.of_message(session, "m1")
        assert [(row.generation, row.attempt, row.fence) for row in rows] == sorted(order)
        assert executions.of_message(session, "nobody") == []


def test_the_questions_of_people_have_an_index(database: Database) -> None:
    """By message, by time, and by task or actor and time; there are millions of rows."""
    indexes = inspect(database.engine).get_indexes("conventions_executions")
    assert sorted(index["column_names"] for index in indexes) == [
        ["actor", "ended_at"],
        ["ended_at"],
        ["ended_at"],  # of those alone that wait for their place in the chain
        ["ended_at", "id"],  # of those alone that were tried again
        ["key"],
        ["message_id"],
        ["number"],  # of those alone that are in the chain
        ["task", "ended_at"],
    ]
