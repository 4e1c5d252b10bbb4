"""Audit: who did what to which, when and why, and what it changed (R22). Rows are only ever added."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from conventions.core.error_text import clean, cut
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import insert_into, utc_now
from conventions.storage.tables import AuditRow


def record(session: Session, deed: AuditEntry) -> None:
    """Add a row, in the transaction of what was done: there is never one without the other."""
    session.add(AuditRow(**_row(deed, utc_now())))


def record_once(session: Session, deeds: Sequence[tuple[AuditEntry, datetime]]) -> None:
    """Add rows of deeds that the journal has, and when they were done; those that are there already are left."""
    if deeds:
        rows = {deed.id: _row(deed, at) for deed, at in deeds}
        insert = insert_into(session, AuditRow).on_conflict_do_nothing(index_elements=["id"])
        # In order, so that two that insert the same rows do not wait for each other in a circle.
        session.execute(insert, [rows[id_] for id_ in sorted(rows)])


def listing(session: Session, limit: int, target: str | None = None) -> Sequence[AuditRow]:
    """The last deeds, the newest first; of one target where it is given."""
    query = select(AuditRow).order_by(AuditRow.at.desc(), AuditRow.id).limit(limit)
    return session.scalars(query if target is None else query.where(AuditRow.target == cut(target))).all()


def _row(deed: AuditEntry, at: datetime) -> dict[str, Any]:
    return {
        "id": deed.id,
        "at": at,
        "actor": cut(deed.actor),
        "action": deed.action,
        "target": cut(deed.target),
        "reason": None if deed.reason is None else clean(deed.reason),
        "before": deed.before,
        "after": deed.after,
    }
