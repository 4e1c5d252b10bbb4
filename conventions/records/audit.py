"""The audit: who did what, to which target, when and why, and what it changed (R22). Rows are only added."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from conventions.core.error_text import clean, cut
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import insert_into, utc_now
from conventions.storage.tables import AuditRow


def record(session: Session, entry: AuditEntry) -> None:
    """Add a row in the transaction of the action. So there is never one without the other."""
    session.add(AuditRow(**_row(entry, utc_now())))


def record_once(session: Session, entries: Sequence[tuple[AuditEntry, datetime]]) -> None:
    """Add entries from the journal, with the time of each action. Entries that are already there stay as they are."""
    if entries:
        rows = {entry.id: _row(entry, at) for entry, at in entries}
        insert = insert_into(session, AuditRow).on_conflict_do_nothing(index_elements=["id"])
        # Sorted, so that two writers of the same rows cannot deadlock.
        session.execute(insert, [rows[id_] for id_ in sorted(rows)])


def listing(session: Session, limit: int, target: str | None = None) -> Sequence[AuditRow]:
    """The last entries, newest first. With `target`, only its entries."""
    query = select(AuditRow).order_by(AuditRow.at.desc(), AuditRow.id).limit(limit)
    return session.scalars(query if target is None else query.where(AuditRow.target == cut(target))).all()


def _row(entry: AuditEntry, at: datetime) -> dict[str, Any]:
    return {
        "id": entry.id,
        "at": at,
        "actor": cut(entry.actor),
        "action": entry.action,
        "target": cut(entry.target),
        "reason": None if entry.reason is None else clean(entry.reason),
        "before": entry.before,
        "after": entry.after,
    }
