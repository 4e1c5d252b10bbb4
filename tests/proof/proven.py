"""An audit with some rows, sealed, for the tests of the proof."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from conventions.core.audit_keys import AuditKeys
from conventions.core.entry_signatures import EntrySignatures
from conventions.core.error_text import FailureText
from conventions.core.message_keys import MessageKeys
from conventions.core.named_keys import new_key
from conventions.proof import waiting_rows
from conventions.proof.chain_report import ChainReport, Fault
from conventions.proof.proven_tables import TABLES
from conventions.proof.verify import verify
from conventions.recording.journal_rows import write_rows
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.records.journal import AuditJournalEntry, Event, JournalEntry
from conventions.storage.database import Database

NEW, OLD = new_key("new"), new_key("old")
KEYS = AuditKeys.parse(NEW)
SIGNED = EntrySignatures(MessageKeys.parse(new_key("k1")))
LONG_AGO = datetime(2026, 11, 1, 9, 0, 0, 123456, tzinfo=UTC)


def executions(
    first: int, number: int, actor: str = "u-42", at: datetime | None = None, **values: Any
) -> list[JournalEntry]:
    """Attempts `m<first>` and so on, every third of which failed."""
    found = []
    for one in range(first, first + number):
        failed = one % 3 == 0
        event = Event(
            f"m{one}", "retried" if failed else "succeeded", task="shop.Pay", queue="mail", actor=actor, key=f"{actor}:{one}", attempt=1,
            token="t", worker="w1", enqueued_at="2026-11-01T18:00:00+09:00", started_at="2026-11-01T18:00:01.5+09:00", wait=1, runtime=0.1 + one,
            release="r1", failure=FailureText("ValueError", f"no {actor} größer", "Traceback …\nValueError", "f" * 16) if failed else None,
        )  # fmt: skip
        for name, value in values.items():
            setattr(event, name, value)
        moment = (at or LONG_AGO) + timedelta(seconds=one)
        found.append(JournalEntry(f"{one}-1".encode(), event, one, moment))
    return found


def acts(first: int, number: int, actor: str = "ops", at: datetime | None = None) -> list[AuditJournalEntry]:
    """Actions `a<first>` and so on, as the journal has them."""
    return [
        AuditJournalEntry(
            f"{one}-2".encode(),
            AuditEntry(
                actor,
                "schedule pause",
                f"s{one}",
                f"since {actor} says so",
                {"b": [1, 2.5, None], "a": "é"},
                {2: "x"},
                id=f"a{one}",
            ),
            (at or LONG_AGO) + timedelta(seconds=one),
        )
        for one in range(first, first + number)
    ]


def write(database: Database, *found: JournalEntry | AuditJournalEntry, keys: AuditKeys | None = KEYS) -> int:
    """Record entries as the recorder does."""
    return write_rows(database, found, "test", keys)


def act(database: Database, *entries: AuditEntry) -> None:
    """Do something, as a command does: its row waits."""
    database.row_signatures = lambda: SIGNED
    for entry in entries:
        with database.session() as session:
            audit.record(session, entry)


def seal(database: Database, keys: AuditKeys = KEYS) -> int:
    """Put rows that wait into their chains."""
    return sum(waiting_rows.seal(database, table, keys, SIGNED) for table in TABLES)


def reports(database: Database, *told: Any, keys: AuditKeys = KEYS) -> dict[str, ChainReport]:
    """What is seen of each chain, by its name."""
    return {report.chain: report for report in verify(database, keys, told, SIGNED)}


def fault(database: Database, *told: Any, keys: AuditKeys = KEYS) -> Fault | None:
    """The first fault, of either chain; `None`: both are whole."""
    return next((one.fault for one in reports(database, *told, keys=keys).values() if one.fault), None)


def attack(database: Database, *statements: str) -> None:
    """Change the database, as somebody who has it, and no key."""
    with database.session() as session:
        for statement in statements:
            session.execute(text(statement))


def pages(found: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Parts of a list."""
    for start in range(0, len(found), size):
        yield found[start : start + size]
