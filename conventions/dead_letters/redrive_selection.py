"""Which letters a filter selects, as conditions of SQL; also those that a redrive has left, which only its row can tell."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from sqlalchemy import ColumnElement, or_
from sqlalchemy.orm import Session

from conventions.core.errors import SelectionUnknown
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.resent_letters import TAKEN
from conventions.storage.database import utc_now
from conventions.storage.tables import DeadLetterRow, RedriveRow

REDRIVE_LIMIT = 3  # redrives of one letter; a further one needs `again`
LONGEST_CHAIN = 50  # redrives, each of what the one before has left: SQLite takes no statement of any size


def selected(session: Session, which: Filter, now: datetime | None = None) -> list[ColumnElement[bool]]:
    """The conditions of a filter. Ages count from `now`. Raises: SelectionUnknown."""
    return _selected(session, which, now or utc_now(), ())


def left_by(session: Session, redrive: RedriveRow) -> list[ColumnElement[bool]]:
    """Letters of the selection of a redrive that it has not sent. Those that died after its start, or after they were counted, do not belong to it.

    Raises:
        SelectionUnknown.
    """
    return _left_by(session, redrive, ())


def stated(session: Session, which: Filter) -> Filter:
    """A filter that names a state. Of what a redrive has left, it is the one of the letters that this one sends. Raises: SelectionUnknown."""
    if which.left_by is not None and which.state in (None, "dead"):
        which = replace(which, state=selection_of(_redrive(session, which.left_by)).state)
    return which if which.state else replace(which, state="dead")


def selection_of(redrive: RedriveRow) -> Filter:
    """Which letters a redrive sends. Raises: SelectionUnknown."""
    try:
        return Filter.of(redrive.selection)
    except TypeError as error:
        raise SelectionUnknown(
            f"a later release wrote the redrive {redrive.id}: which letters it sends is not known here ({error})"
        ) from error


def _redrive(session: Session, id: str) -> RedriveRow:  # noqa: A002  # the word of the glossary
    redrive = session.get(RedriveRow, id)
    if redrive is None:
        raise SelectionUnknown(f"there is no redrive {id}: dead-letters redrives lists them")
    return redrive


def _selected(session: Session, which: Filter, now: datetime, before: Collection[str]) -> list[ColumnElement[bool]]:
    if which.left_by is None:
        return which.conditions(now)
    redrive = _redrive(session, which.left_by)
    if redrive.id in before or len(before) >= LONGEST_CHAIN:
        raise SelectionUnknown(
            f"the redrive {redrive.id} is of what too many others have left, one after the other: use other filters"
        )
    return [*stated(session, which).conditions(now), *_left_by(session, redrive, (*before, redrive.id))]


def _left_by(session: Session, redrive: RedriveRow, before: Collection[str]) -> list[ColumnElement[bool]]:
    row = DeadLetterRow
    not_sent = or_(row.redrive_id.is_(None), row.redrive_id != redrive.id)
    not_taken = or_(row.answer.is_(None), row.answer != TAKEN)
    which = selection_of(redrive)
    found = [*_selected(session, which, redrive.created_at, before), not_sent, not_taken]
    if which.counted.newest is None:  # that is the closer bound, and by the clock of the failures
        found.append(row.last_failed_at <= redrive.created_at)
    return found if redrive.again else [*found, row.generation < REDRIVE_LIMIT]
