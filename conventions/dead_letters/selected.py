"""Which letters a filter selects, as conditions of SQL; also those that a redrive has left, which only its row can tell."""

from datetime import datetime

from sqlalchemy import ColumnElement, false, or_
from sqlalchemy.orm import Session

from conventions.dead_letters.filter import Filter
from conventions.dead_letters.resent_letters import TAKEN
from conventions.storage.database import utc_now
from conventions.storage.tables import DeadLetterRow, RedriveRow

REDRIVE_LIMIT = 3  # redrives of one letter; a further one needs `again`


def selected(session: Session, which: Filter, now: datetime | None = None) -> list[ColumnElement[bool]]:
    """The conditions of a filter. Ages count from `now`. Raises: TypeError: a later release wrote the selection of its redrive."""
    found = which.conditions(now or utc_now())
    if which.left_by is None:
        return found
    redrive = session.get(RedriveRow, which.left_by)
    return [*found, *(left_by(session, redrive) if redrive is not None else [false()])]


def left_by(session: Session, redrive: RedriveRow) -> list[ColumnElement[bool]]:
    """Letters of the selection of a redrive that it has not sent. Those that died after its start, or after they were counted, do not belong to it."""
    row = DeadLetterRow
    not_sent = or_(row.redrive_id.is_(None), row.redrive_id != redrive.id)
    not_taken = or_(row.answer.is_(None), row.answer != TAKEN)
    which = Filter.of(redrive.selection)
    found = [*selected(session, which, redrive.created_at), not_sent, not_taken]
    if which.counted.newest is None:  # that is the closer bound, and by the clock of the failures
        found.append(row.last_failed_at <= redrive.created_at)
    return found if redrive.again else [*found, row.generation < REDRIVE_LIMIT]
