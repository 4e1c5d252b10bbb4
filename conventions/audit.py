"""Audit: who did what to which, when and why, and what it changed (R22). Rows are only ever added."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from conventions.database import utc_now
from conventions.failures import clean, cut
from conventions.tables import AuditRow


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that somebody did.

    Attributes:
        actor: who.
        action: what, as the command line names it: `dead-letters edit`.
        target: to which: an id, a group, or that of a redrive.
        reason: why.
        before: what was there, as far as it was changed.
        after: what is there now.
    """

    actor: str
    action: str
    target: str
    reason: str | None = None
    before: Any = None
    after: Any = None


def record(session: Session, deed: Deed) -> None:
    """Add a row, in the transaction of what was done: there is never one without the other."""
    session.add(
        AuditRow(
            id=str(uuid4()),
            at=utc_now(),
            actor=cut(deed.actor),
            action=deed.action,
            target=cut(deed.target),
            reason=None if deed.reason is None else clean(deed.reason),
            before=deed.before,
            after=deed.after,
        )
    )


def listing(session: Session, limit: int, target: str | None = None) -> Sequence[AuditRow]:
    """The last deeds, the newest first; of one target where it is given."""
    query = select(AuditRow).order_by(AuditRow.at.desc(), AuditRow.id).limit(limit)
    return session.scalars(query if target is None else query.where(AuditRow.target == cut(target))).all()
