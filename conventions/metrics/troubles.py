"""What has gone wrong and stays so until a person looks: batches that stand still, redrives that stopped, schedules whose last run failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from conventions.batches.application import BatchApplication
from conventions.batches.batch_state import Batches
from conventions.execution.application import Application
from conventions.schedules.run_history import FAILING, outcomes_of
from conventions.schedules.schedule_summary import ScheduleSummary
from conventions.storage.database import utc_now
from conventions.storage.tables import RedriveRow

OPEN_AT_MOST = 200  # batches that are looked at, the latest first
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
    """Those that stopped within the last hour. Raises: SQLAlchemyError."""
    row = RedriveRow
    query = select(row).where(row.state == "stopped", row.ended_at >= utc_now() - STOPPED_WITHIN)
    return [
        StoppedRedrive(one.id, one.note, one.ended_at.timestamp()) for one in session.scalars(query) if one.ended_at
    ]


def failing_schedules(app: Application, session: Session, schedules: Sequence[ScheduleSummary]) -> dict[str, str]:
    """Schedules whose last run failed, each with the class of its error. Raises: RedisError, SQLAlchemyError."""
    runs = [(one.listed.name, one.state.last_run) for one in schedules if one.state.last_run is not None]
    asked = [run for _, run in runs if run is not None]
    found = outcomes_of(cast("BatchApplication", app), asked, session, broker=False)
    failed = zip(runs, found, strict=True)
    return {name: (one.error or "").partition(":")[0] for (name, _), one in failed if one.word in FAILING}
