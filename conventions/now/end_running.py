"""End a running job by force: its process is killed, at once, and the job is over (R22)."""

import time
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from conventions.execution.application import Application
from conventions.jobs.job import Job
from conventions.metrics.levels import RunningNow, running_jobs
from conventions.metrics.worker_reports import SAY_EVERY, WorkerNow, WorkerReports

PREFORK = "prefork"
ENDS_WITHIN = 15.0  # seconds; a job that shares its process is ended when its turn comes
ASK_AGAIN, LOOK_EVERY = 2.0, 0.2  # seconds

HowItEnded: TypeAlias = Literal["ended", "not running", "in a thread", "goes on"]


class ForcedEnd(NamedTuple):
    """What became of it.

    Attributes:
        how: `in a thread`: no thread can be ended. `goes on`: its worker has not ended it in time, and may do so yet.
        state: of the job.
        worker: where it ran, as far as is known.
        pool: of that worker.
    """

    how: HowItEnded
    state: str
    worker: str = ""
    pool: str = ""


def end_running(app: Application, message_id: str, within: float = ENDS_WITHIN) -> ForcedEnd:
    """Kill the process of a running job, whose message must be cancelled before: else a retry would begin meanwhile.

    Args:
        app: the application.
        message_id: of the job.
        within: seconds that its worker has.

    Raises:
        RedisError, or an error of the transport: it may have been ended, or not.
    """
    place = _place(app, message_id, within=2 * SAY_EVERY)
    if place is None:
        return ForcedEnd("not running", Job.of(message_id).state)
    worker, _ = place
    if worker.report.pool != PREFORK:
        return ForcedEnd("in a thread", "running", worker.name, worker.report.pool)
    deadline, asks_at = time.monotonic() + within, 0.0
    while (state := Job.of(message_id).state) == "running" and time.monotonic() < deadline:
        if time.monotonic() >= asks_at:  # again: one in a group is not ended before its turn
            app.control.revoke(message_id, terminate=True, signal="SIGKILL", destination=[worker.name])
            asks_at = time.monotonic() + ASK_AGAIN
        time.sleep(LOOK_EVERY)
    return ForcedEnd("goes on" if state == "running" else "ended", state, worker.name, worker.report.pool)


def _place(app: Application, message_id: str, within: float) -> tuple[WorkerNow, RunningNow] | None:
    """Which worker runs it. A worker reports every two seconds, so one that has just begun it may not have said so."""
    deadline = time.monotonic() + within
    while True:
        found = next(_runs(app, message_id), None)
        if found is not None or Job.of(message_id).state != "running" or time.monotonic() >= deadline:
            return found
        time.sleep(LOOK_EVERY)


def _runs(app: Application, message_id: str) -> Iterator[tuple[WorkerNow, RunningNow]]:
    workers = WorkerReports(app.store).listing()
    by_name = {one.name: one for one in workers}
    for job in running_jobs(app, workers):
        if job.id == message_id:
            yield by_name[job.worker], job
