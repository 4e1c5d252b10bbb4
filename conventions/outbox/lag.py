"""How many messages wait in the outbox, and for how long."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from conventions.storage.tables import OutboxRow


class Lag(NamedTuple):
    """What waits.

    Attributes:
        rows: how many.
        seconds: since the oldest one was written; 0 where none waits.
        fault: why the last try of the oldest one failed, if it did.
    """

    rows: int
    seconds: float
    fault: str | None


def lag(session: Session, application: str, now: datetime) -> Lag:
    """What waits now of an application, by its key prefix, in what is committed."""
    own = OutboxRow.application == application
    oldest = session.scalar(select(OutboxRow).where(own).order_by(OutboxRow.written_at).limit(1))
    if oldest is None:
        return Lag(0, 0.0, None)
    rows = session.scalar(select(func.count()).select_from(OutboxRow).where(own)) or 0
    return Lag(rows, max(0.0, (now - oldest.written_at).total_seconds()), oldest.fault)
