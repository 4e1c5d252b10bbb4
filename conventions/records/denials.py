"""A job whose actor had no permission is in the audit, beside its dead letter (R20, R22)."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from conventions.core.chunking import batched
from conventions.core.error_text import cut
from conventions.records.audit_entry import AuditEntry
from conventions.records.journal import JournalEntry
from conventions.storage.tables import ExecutionRow

ACTION = "permission denied"
LOOKED_UP = 500  # messages in one query


def denials(session: Session, entries: Sequence[JournalEntry]) -> list[tuple[AuditEntry, datetime]]:
    """The actions of jobs that died for want of a permission, each with the time of its death; equal ones become one row.

    A row is in the name of who lacks the permission. A death that is told twice, as where its message came again, counts once. An attempt whose
    outcome was refused, since another one ran or will run, has none.

    Args:
        session: the transaction that has stored them as executions.
        entries: events that were not stored before.
    """
    died = [entry for entry in entries if _is_denied(entry)]
    told = {(cut(entry.event.message_id), entry.event.generation) for entry in _before(session, died)}
    found = []
    for entry in died:
        event = entry.event
        name = (cut(event.message_id), event.generation)
        if name in told or event.denied is None or event.failure is None:
            continue
        told.add(name)
        after = {"task": event.task, "actor": event.actor, "generation": event.generation, "attempt": event.attempt}
        found.append(
            (AuditEntry(event.denied, ACTION, event.message_id, event.failure.error_message, after=after), entry.at)
        )
    return found


def _is_denied(entry: JournalEntry) -> bool:
    event = entry.event
    return event.denied is not None and event.failure is not None and event.kind == "dead"


def _before(session: Session, entries: Sequence[JournalEntry]) -> list[JournalEntry]:
    """Those of a message that SQL has seen die before in the same generation."""
    row, new = ExecutionRow, {entry.event.id for entry in entries}
    seen: set[tuple[str, int]] = set()
    for some in batched(sorted({cut(entry.event.message_id) for entry in entries}), LOOKED_UP):
        query = select(row.id, row.message_id, row.generation).where(row.message_id.in_(some), row.kind == "dead")
        seen |= {(message_id, generation) for id_, message_id, generation in session.execute(query) if id_ not in new}
    return [entry for entry in entries if (cut(entry.event.message_id), entry.event.generation) in seen]
