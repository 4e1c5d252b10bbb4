"""Executions and actions as one listing, on SQLite and PostgreSQL: in order, by every filter, page after page."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import re
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event, insert, text

from conventions.core.errors import BusinessError
from conventions.records import audit, audit_listing, executions
from conventions.records.audit_entry import AuditEntry
from conventions.records.audit_filter import AuditFilter
from conventions.records.audit_listing import FIELDS, PAGE, AuditLine, left_out_text, listing, pages, task_names
from conventions.records.journal import JournalEntry
from conventions.storage.database import Database
from conventions.storage.tables import AuditRow, ExecutionRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.failures import failure

BEGIN = datetime(2026, 11, 25, 9, tzinfo=UTC)


def at(minute: int) -> datetime:
    """A moment."""
    return BEGIN + timedelta(minutes=minute)


def record(database: Database, *entries: JournalEntry) -> None:
    """Record executions."""
    with database.session() as session:
        executions.record(session, entries)


def note(database: Database, *entries: tuple[AuditEntry, datetime]) -> None:
    """Record actions."""
    with database.session() as session:
        audit.record_once(session, entries)


def found(database: Database, which: AuditFilter, limit: int = 100) -> list[str]:
    """The ids of messages and targets of actions that a filter finds."""
    with database.session(read_only=True) as session:
        return [line.id or str(line.target) for line in listing(session, which, limit)]


@pytest.fixture
def incident(database: Database) -> Database:
    """Three jobs and three actions, by turns."""
    record(
        database,
        failure("a", task="tasks.mail.Send", actor="u-1", at=at(0), worker="w1", kind="retried", attempts=1),
        failure("b", task="tasks.mail.Resend", actor="u-2", queue="long", at=at(2), worker="w2"),
        failure("c", task="tasks.other.Send", actor="u-1", kind="succeeded", failure=None, at=at(4)),
    )
    note(
        database,
        (AuditEntry("u-1", "schedule pause", "nightly", "the file moves", None, {"until": None}), at(1)),
        (AuditEntry("ops", "schedule run", "nightly"), at(3)),
        (AuditEntry("ops", "dead-letters edit", "b", "typo", {"n": 1}, {"n": 2}), at(5)),
    )
    return database


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (AuditFilter(), ["b", "c", "nightly", "b", "nightly", "a"]),
        (AuditFilter(of="executions"), ["c", "b", "a"]),
        (AuditFilter(of="actions"), ["b", "nightly", "nightly"]),
        (AuditFilter(actor="u-1"), ["c", "nightly", "a"]),
        (AuditFilter(task="tasks.mail.Send"), ["a"]),
        (AuditFilter(task="Send"), ["c", "a"]),
        (AuditFilter(task="mail.Send"), ["a"]),
        (AuditFilter(task="end"), []),
        (AuditFilter(queue="long"), ["b"]),
        (AuditFilter(id="b"), ["b", "b"]),
        (AuditFilter(id="nightly"), ["nightly", "nightly"]),
        (AuditFilter(action="schedule run"), ["nightly"]),
        (AuditFilter(action="schedule"), ["nightly", "nightly"]),
        (AuditFilter(action="sched"), []),
        (AuditFilter(action="%"), []),
        (AuditFilter(outcome="dead"), ["b"]),
        (AuditFilter(worker="w1"), ["a"]),
        (AuditFilter(since=at(4)), ["b", "c"]),
        (AuditFilter(until=at(1)), ["a"]),
        (AuditFilter(since=at(1), until=at(3)), ["b", "nightly"]),
        (AuditFilter(actor="u-1", task="Send", outcome="succeeded"), ["c"]),
        (AuditFilter(actor="nobody\0"), []),
    ],
)
def test_every_filter(incident: Database, which: AuditFilter, expected: list[str]) -> None:
    """All that are given must match; newest first, whichever kind it is."""
    assert found(incident, which) == expected
    assert found(incident, which, limit=2) == expected[:2]


def spoil(database: Database) -> None:
    """Write the execution of `c` and the action of `ops` on `nightly` so that nobody can read them."""
    execution, action = (
        ("started_at = 'soon'", "before = '{'")
        if database.is_sqlite
        else ("started_at = 'infinity'", "at = 'infinity'")
    )
    with database.session() as session:
        session.execute(text(f"UPDATE {ExecutionRow.__tablename__} SET {execution} WHERE message_id = 'c'"))
        session.execute(
            text(f"UPDATE {AuditRow.__tablename__} SET {action} WHERE target = 'nightly' AND actor = 'ops'")
        )


def test_a_row_that_cannot_be_read_hides_no_other(incident: Database, caplog: pytest.LogCaptureFixture) -> None:
    """It is left out, and said; others take its place, and pages go on behind it."""
    spoil(incident)
    left_out: set[str] = set()
    with incident.session(read_only=True) as session:
        lines = listing(session, AuditFilter(), 3, left_out=left_out)
    assert [line.id or line.target for line in lines] == ["b", "b", "nightly"]
    assert (len(left_out), left_out_text(left_out)[:23]) == (2, "2 rows cannot be read, ")
    assert "see `audit verify`" in caplog.text
    assert [line.id or line.target for page in pages(incident, AuditFilter()) for line in page] == [
        "b",
        "b",
        "nightly",
        "a",
    ]


def test_many_rows_that_cannot_be_read(incident: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that would read the whole table for them ends with what is wrong."""
    spoil(incident)
    monkeypatch.setattr(audit_listing, "MOST_LEFT_OUT", 1)
    with incident.session(read_only=True) as session, pytest.raises(BusinessError, match="see `audit verify`"):
        listing(session, AuditFilter(), 9)


def test_the_fields_of_both_kinds(incident: Database) -> None:
    """Each has all; those of the other kind are empty, and times are in the given zone."""
    with incident.session(read_only=True) as session:
        action, succeeded, *_, retried = listing(session, AuditFilter(), 9)
    values = retried.values(ZoneInfo("Asia/Tokyo"))
    assert tuple(values) == FIELDS
    assert values["error_message"]
    assert {name: value for name, value in values.items() if value is not None and name != "error_message"} == {
        "at": "2026-11-25T18:00:00+09:00", "of": "execution", "actor": "u-1", "task": "tasks.mail.Send", "queue": "mail",
        "id": "a", "attempt": 1, "generation": 0, "worker": "w1", "outcome": "retried", "error": "BusinessError",
    }  # fmt: skip
    assert (succeeded.outcome, succeeded.error, succeeded.error_message) == ("succeeded", None, None)
    assert {name: value for name, value in action.values(UTC).items() if value is not None} == {
        "at": "2026-11-25T09:05:00+00:00", "of": "action", "actor": "ops", "action": "dead-letters edit", "target": "b",
        "reason": "typo", "before": {"n": 1}, "after": {"n": 2},
    }  # fmt: skip


@pytest.mark.parametrize(("after", "expected"), [
    ({"outcome": "failed", "status": 404}, "failed"), ({"outcome": "done"}, "done"), ({"outcome": ["odd"]}, None),
    ({"outcome": "a secret"}, None), ("failed", None), (None, None),
])  # fmt: skip
def test_an_action_that_says_how_it_went(database: Database, after: object, expected: str | None) -> None:
    """Has that as its outcome; any other text of `after` stays there."""
    note(database, (AuditEntry("alice", "flower worker shutdown", "w1", after=after), at(0)))
    with database.session(read_only=True) as session:
        (line,) = listing(session, AuditFilter(), 9)
    assert (line.outcome, line.after) == (expected, after)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pages_have_each_row_once(database: Database, size: int) -> None:
    """In one order, also of many rows of one moment, whatever their kind."""
    record(database, *(failure(f"m{number}", at=at(number // 5), token=f"t{number}") for number in range(15)))
    note(database, *((AuditEntry("ops", "cancel", f"a{number}"), at(number // 4)) for number in range(12)))
    with database.session(read_only=True) as session:
        whole = listing(session, AuditFilter(), 100)
        after, seen = None, list[AuditLine]()
        while page := listing(session, AuditFilter(), size, after):
            seen += page
            after = page[-1].position
    assert seen == whole
    assert len({line.position for line in seen}) == 27
    assert [line.at for line in whole] == sorted((line.at for line in whole), reverse=True)


def test_a_row_that_comes_meanwhile_moves_none(database: Database) -> None:
    """The next page begins after the last row that was seen, not after so many rows."""
    record(database, *(failure(f"m{number}", at=at(number)) for number in range(4)))
    with database.session(read_only=True) as session:
        first = listing(session, AuditFilter(), 2)
    record(database, failure("new", at=at(9)))
    with database.session(read_only=True) as session:
        second = listing(session, AuditFilter(), 2, first[-1].position)
    assert [line.id for line in (*first, *second)] == ["m3", "m2", "m1", "m0"]


def fill(database: Database, number: int) -> None:
    """Many successes, a second apart."""
    row = {"generation": 0, "attempt": 1, "kind": "succeeded", "actor": "u-1", "queue": "q", "fence": 0}
    rows = [
        row | {"id": f"{one:036}", "message_id": f"m{one}", "task": f"tasks.T{one % 3}", "error_message": "x" * 500,
               "ended_at": BEGIN + timedelta(seconds=one)}
        for one in range(number)
    ]  # fmt: skip
    with database.session() as session:
        session.execute(insert(ExecutionRow), rows)


@pytest.mark.thorough
def test_all_rows_take_the_memory_of_a_page(database: Database) -> None:
    """However many they are."""
    fill(database, 12 * PAGE)
    next(iter(pages(database, AuditFilter(until=BEGIN))))  # imports and caches of the first query
    tracemalloc.start()
    try:
        counted = sum(len(page) for page in pages(database, AuditFilter()))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counted == 12 * PAGE
    assert most < 12 * PAGE * 500, "less than the texts of all rows alone"
    assert [len(page) for page in pages(database, AuditFilter(), PAGE + 1)] == [PAGE, 1]
    assert [len(page) for page in pages(database, AuditFilter(), 2)] == [2]


def test_the_last_part_of_a_task(database: Database) -> None:
    """Is looked up among the names of tasks that have rows; also on a page deep in many rows."""
    fill(database, 3000)
    with database.session(read_only=True) as session:
        assert task_names(session, "T1") == task_names(session, "tasks.T1") == ["tasks.T1"]
        assert task_names(session, "1") == []
        last = listing(session, AuditFilter(task="T1"), 5, listing(session, AuditFilter(), 2990)[-1].position)
    assert [line.id for line in last] == ["m7", "m4", "m1"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "which",
    [
        AuditFilter(),
        AuditFilter(since=at(0), until=at(9)),
        AuditFilter(task="T1"),
        AuditFilter(actor="u-1", of="executions"),
        AuditFilter(id="m7"),
    ],
)
def test_what_people_ask_most_has_an_index(database: Database, which: AuditFilter) -> None:
    """On a page in the middle, too: no table is read from end to end, and no millions of rows are sorted."""
    fill(database, 1000)
    asked: list[tuple[str, Any]] = []

    def hear(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    with database.session(read_only=True) as session:
        after = listing(session, AuditFilter(), 500)[-1].position
        if not database.is_sqlite:  # with few rows it would rather read them all
            session.connection().exec_driver_sql("SET LOCAL enable_seqscan = off")
        event.listen(database.engine, "before_cursor_execute", hear)
        listing(session, which, 50, after)
        event.remove(database.engine, "before_cursor_execute", hear)
        for statement, parameters in asked:
            explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
            lines = session.connection().exec_driver_sql(f"{explain} {statement}", parameters)
            plan = "\n".join(str(line[-1]) for line in lines)
            assert not re.search(r"Seq Scan|SCAN conventions_\w+$", plan, re.MULTILINE), plan
    assert asked


def test_actions_by_minute(database: Database) -> None:
    """Those on many things together, by who, what and why; the last ones, the earlier first."""
    half = timedelta(seconds=30)
    note(database, *((AuditEntry("u", "edit", f"m{n}", "why"), at(1) + n * half) for n in range(5)))
    note(database, (AuditEntry("u", "edit", "x"), at(1)), (AuditEntry("u", "other", "x", "why"), at(1)))
    with database.session(read_only=True) as session:
        found = audit.by_minute(session, 10, ["edit"], at(2))
        assert found == [
            audit.Group("u", "edit", "why", "m2", at(2), at(2) + half, 2),
            audit.Group("u", "edit", "why", "m4", at(3), at(3), 1),
        ]
        assert audit.by_minute(session, 1, ["edit"], at(0)) == found[1:]
        assert [one.reason for one in audit.by_minute(session, 10, ["edit"], at(0))].count("") == 1
