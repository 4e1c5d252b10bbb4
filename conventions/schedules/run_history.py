"""What became of a schedule's runs: ended runs from the executions in SQL, the others from Redis."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from conventions.batches.application import BatchApplication
from conventions.schedules.schedule_state import Run

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from conventions.storage.tables import ExecutionRow

SHORT = 200  # characters of an error
BATCH_WORDS = {"splitting": "running", "running": "running", "done": "succeeded"}
PARTLY = "partly failed"  # a batch that is done, with dead chunks
FAILING = frozenset({"dead", "failed", PARTLY})
WELL = frozenset({"succeeded", "duplicate"})


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended, or where it is.

    Attributes:
        word: `waiting`, `running`, `retrying`, or how its last execution ended: `succeeded`, `dead`, `cancelled`, …;
            for a batch also `partly failed`; for slots that were not sent the reason: `skipped`, `missed`, `paused`,
            `failed`; else
                `unknown`.
        runtime: seconds of the last execution.
        ended_at: when it ended.
        is_batch: whether it began a batch, which has a state of its own.
        error: of a dead or retried run, in one line.
    """

    word: str
    runtime: float | None = None
    ended_at: datetime | None = None
    is_batch: bool = False
    error: str | None = None


def outcomes_of(
    app: BatchApplication, runs: Sequence[Run], session: "Session | None", *, broker: bool = True
) -> list[RunOutcome]:
    """The outcome of each run, in the order of the runs.

    Args:
        app: the application.
        runs: lines of the history.
        session: of the executions; without it ended runs are `unknown`.
        broker: whether to ask the broker; if not, unfinished runs are `unknown`, except batches.

    Raises:
        RedisError, SQLAlchemyError: one of them does not answer.
    """
    ids = [run.id for run in runs if run.id]
    batches = app.batches.states(ids)
    ended = [one for one in app.batches.summaries([id_ for id_, state in batches.items() if state == "done"]) if one]
    failed = {one.id: one.failed for one in ended if one.failed_chunks}
    rows: dict[str, ExecutionRow] = {}
    if session is not None and ids:
        from conventions.records import executions  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        rows = executions.last_of_each(session, ids)
    places = app.port.places(ids) if broker else {}
    return [
        _outcome(places.get(run.id), batches.get(run.id), rows.get(run.id), failed.get(run.id))
        if run.id
        else RunOutcome(run.what)
        for run in runs
    ]


def failing(words: Sequence[str]) -> int:
    """How many of the latest finished runs failed in a row; `words` has the newest run first."""
    count = 0
    for word in words:
        if word in WELL:
            break
        count += word in FAILING
    return count


def failing_words(count: int) -> str:
    """The number of failures as a sentence for people."""
    return "its last run failed" if count == 1 else f"its last {count} runs failed"


def _outcome(place: str | None, batch: str | None, row: "ExecutionRow | None", failed: int | None) -> RunOutcome:
    if batch is not None:  # the message of a batch ends when all chunks are cut
        word = BATCH_WORDS.get(batch, batch) if failed is None else PARTLY
        ended = row.ended_at if row and word != "running" else None
        error = None if failed is None else f"{failed:,} items failed"
        return RunOutcome(word, ended_at=ended, is_batch=True, error=error)
    if place is not None:
        again = row is not None and row.kind == "retried" and place == "waiting"
        return RunOutcome("retrying" if again else place, error=_error(row) if again else None)
    if row is None:
        return RunOutcome("unknown")
    return RunOutcome("retrying" if row.kind == "retried" else row.kind, row.runtime, row.ended_at, error=_error(row))


def _error(row: "ExecutionRow | None") -> str | None:
    if row is None or row.error is None:
        return None
    return " ".join(f"{row.error}: {row.error_message}".split())[:SHORT]
