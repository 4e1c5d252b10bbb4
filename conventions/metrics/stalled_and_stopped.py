"""What has gone wrong and stays so until a person looks: batches that stand still, redrives that stopped, schedules whose last run failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, cast

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from conventions.batches.application import BatchApplication
from conventions.batches.batch_state import Batches
from conventions.core.chunking import batched
from conventions.core.errors import SelectionUnknown
from conventions.dead_letters import redrive_rows
from conventions.dead_letters.letters import STATES
from conventions.execution.application import Application
from conventions.metrics.series import Series
from conventions.schedules.run_history import FAILING, outcomes_of
from conventions.schedules.schedule_summary import ScheduleSummary
from conventions.storage.database import utc_now
from conventions.storage.tables import DeadLetterRow, RedriveRow

OPEN_AT_MOST = 200  # batches that are looked at, the latest first
SENT_AGAIN = ("redriving", "redriven")  # states of letters
CAUSES_AT_ONCE = 100  # in one statement
ROUNDED = timedelta(milliseconds=1)  # by which a moment of Redis may differ from the same one in SQL
STOPPED_WITHIN = timedelta(hours=1)  # a redrive that stopped is told of for so long


@dataclass(frozen=True, slots=True)
class StalledBatch:
    """A batch that runs, and of which nothing has been heard for its `stall_after`. `since`: seconds since the epoch."""

    id: str
    task: str
    done: int
    total: int | None
    since: float


@dataclass(frozen=True, slots=True)
class StoppedRedrive:
    """A redrive that stopped by itself. `note`: why; it holds no values."""

    id: str
    note: str
    since: float


def stalled_batches(app: Application) -> list[StalledBatch]:
    """Those that stand still. Raises: RedisError."""
    return [
        StalledBatch(one.id, one.task, one.done, one.total, one.progress.updated_at)
        for one in Batches(app.store, timedelta()).listing(OPEN_AT_MOST, "running")
        if one.progress.stalled
    ]


def stopped_redrives(session: Session) -> list[StoppedRedrive]:
    """Those that stopped within the last hour, and have letters that are dead still: sent and failed again, or not sent. Raises: SQLAlchemyError."""
    row = RedriveRow
    query = select(row).where(row.state == "stopped", row.ended_at >= utc_now() - STOPPED_WITHIN)
    return [
        StoppedRedrive(one.id, one.note, one.ended_at.timestamp())
        for one in session.scalars(query)
        if one.ended_at and _has_dead_letters(session, one)
    ]


def _has_dead_letters(session: Session, redrive: RedriveRow) -> bool:
    row = DeadLetterRow
    sent = select(row.id).where(row.redrive_id == redrive.id, row.state == "dead").limit(1)
    if session.scalar(sent) is not None:
        return True
    try:
        return redrive_rows.has_left(session, redrive)
    except SelectionUnknown:
        return True


class NewLetters(NamedTuple):
    """Letters whose last failure is recent: those that are dead still, and those that a person has redriven or discarded since."""

    dead: int
    settled: int


def new_letters(session: Session, minutes: int) -> dict[Series, NewLetters]:
    """By task and queue, those that failed within the last so many minutes, the present one included. Raises: SQLAlchemyError."""
    row, now = DeadLetterRow, utc_now()
    since = now.replace(second=0, microsecond=0) - timedelta(minutes=minutes - 1)
    groups = (row.task, row.queue, row.state)
    query = select(*groups, func.count()).where(row.state.in_(STATES), row.last_failed_at >= since).group_by(*groups)
    found: dict[Series, NewLetters] = {}
    for task, queue, state, number in session.execute(query):
        series = Series(task or "", queue or "")
        dead, settled = found.get(series, NewLetters(0, 0))
        found[series] = NewLetters(dead + number, settled) if state == "dead" else NewLetters(dead, settled + number)
    return found


def sent_again(session: Session, since: Mapping[str, float]) -> dict[str, int]:
    """How many letters of each cause have been sent again, and are not dead now. It reads their index. Raises: SQLAlchemyError.

    Args:
        session: of SQL.
        since: by the fingerprint of a cause, the moment from which on its deaths count, in seconds since the epoch.
    """
    row = DeadLetterRow
    found: dict[str, int] = {}
    for some in batched(sorted(since), CAUSES_AT_ONCE):
        moments = {one: datetime.fromtimestamp(since[one], UTC) - ROUNDED for one in some}
        each = [and_(row.fingerprint == one, row.last_failed_at >= at) for one, at in moments.items()]
        query = select(row.fingerprint, func.count()).where(
            row.state.in_(SENT_AGAIN),
            row.fingerprint.in_(some),
            row.last_failed_at >= min(moments.values()),
            or_(*each),
        )
        found |= dict(session.execute(query.group_by(row.fingerprint)).all())
    return found


def failing_schedules(app: Application, session: Session, schedules: Sequence[ScheduleSummary]) -> dict[str, str]:
    """Schedules whose last run failed, each with the class of its error. Raises: RedisError, SQLAlchemyError."""
    runs = [(one.listed.name, one.state.last_run) for one in schedules if one.state.last_run is not None]
    asked = [run for _, run in runs if run is not None]
    found = outcomes_of(cast("BatchApplication", app), asked, session, broker=False)
    failed = zip(runs, found, strict=True)
    return {name: (one.error or "").partition(":")[0] for (name, _), one in failed if one.word in FAILING}
