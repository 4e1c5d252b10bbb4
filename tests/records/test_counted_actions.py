"""Equal denials of a minute are one row, which counts them until the minute is over (R22)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from conventions.proof import waiting_rows
from conventions.proof.chain import Chain
from conventions.proof.proven_tables import ACTIONS
from conventions.records import counted_actions
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import Database, utc_now
from conventions.storage.tables import AuditRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.proof.proven import KEYS, SIGNED, fault, seal
from tests.recorded import contents

AT = datetime(2026, 11, 1, 9, 0, 10, tzinfo=UTC)


def count(database: Database, *entries: tuple[AuditEntry, datetime]) -> None:
    """Count in one transaction, as the recorder does."""
    database.row_signatures = lambda: SIGNED
    with database.session() as session:
        counted_actions.count(session, entries, Chain(session, ACTIONS, KEYS))


def denied(
    number: int, at: datetime = AT, actor: str = "u-1", task: str = "Pay"
) -> Sequence[tuple[AuditEntry, datetime]]:
    """So many denials."""
    return [
        (AuditEntry(actor, "permission denied", f"m{one}", "u-1 lacks pay", after={"task": task}), at)
        for one in range(number)
    ]


def rows(database: Database) -> list[tuple[Any, ...]]:
    """Actor, task and count of each row."""
    found = sorted(contents(database, AuditRow), key=lambda row: (row["at"], row["actor"], row["after"]["task"]))
    return [(row["actor"], row["after"]["task"], row["after"]["count"]) for row in found]


def test_equal_ones_are_counted(database: Database) -> None:
    """In one transaction and in the next; the row has the first target and the first moment."""
    count(database, *denied(3))
    count(database, *denied(4, AT + timedelta(seconds=40)), *denied(1, actor="u-2"), *denied(1, task="Refund"))
    assert rows(database) == [("u-1", "Pay", 7), ("u-1", "Refund", 1), ("u-2", "Pay", 1)]
    assert seal(database) == 3
    assert fault(database) is None


def test_a_row_that_cannot_be_read_keeps_nothing_from_being_counted(database: Database) -> None:
    """Somebody has written it so; it is in no chain, and is named."""
    with database.session() as session:
        session.execute(
            text(
                "INSERT INTO conventions_audit (id, at, actor, action, target, before, after, code) VALUES "
                f"('p', '2026-11-01 09:00:20+00:00', 'u-1', 'permission denied', 'm', 'null', '[{'9' * 4400}]', 'x')"
            )
        )
    count(database, *denied(3))
    with database.session() as session:
        session.execute(text("DELETE FROM conventions_audit WHERE id = 'p'"))
    assert rows(database) == [("u-1", "Pay", 3)]


def test_another_minute_is_another_row(database: Database) -> None:
    """By the time of the denial."""
    count(database, *denied(2), *denied(3, AT + timedelta(minutes=1)))
    assert rows(database) == [("u-1", "Pay", 2), ("u-1", "Pay", 3)]


def test_a_row_in_the_chain_changes_no_more(database: Database) -> None:
    """What comes late for a minute begins a further row."""
    count(database, *denied(2))
    seal(database)
    count(database, *denied(3))
    count(database, *denied(1))
    assert sorted(rows(database)) == [("u-1", "Pay", 2), ("u-1", "Pay", 4)]
    seal(database)
    assert fault(database) is None


def test_a_minute_that_is_not_over_waits(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row still counts; other rows do not wait for it."""
    count(database, *denied(2, utc_now()))
    monkeypatch.setattr(waiting_rows, "utc_now", lambda: utc_now() - timedelta(minutes=2))
    assert seal(database) == 0
    monkeypatch.setattr(waiting_rows, "utc_now", lambda: utc_now() + timedelta(minutes=2))
    assert seal(database) == 1
