"""End a running job by force: its process is killed, at once, and the job is over (R22)."""

import time
from typing import Literal, NamedTuple, TypeAlias

from conventions.execution.application import Application
from conventions.execution.claim_names import claim_name
from conventions.jobs.job import Job
from conventions.metrics.state_now import running_jobs
from conventions.metrics.worker_reports import SAY_EVERY, WorkerNow, WorkerReports, silent_holders

PREFORK = "prefork"
ENDS_WITHIN = 15.0  # seconds; a job that shares its process is ended when its turn comes
ASK_AGAIN, LOOK_EVERY = 2.0, 0.2  # seconds
MAY_RUN = ("running", "unknown")  # states of a job that may run: some brokers show no more
BY_ITSELF = ("succeeded", "duplicate", "dead", "discarded", "expired", "lost")  # ends that nobody has forced

HowItEnded: TypeAlias = Literal["ended", "not running", "in a thread", "goes on"]


class ForcedEnd(NamedTuple):
    """What became of it.

    Attributes:
        how: `not running`: no worker says that it runs it, or it has ended by itself. `in a thread`: no thread can be ended. `goes on`: its
            worker has not ended it in time, and may do so yet.
        state: of the job.
        worker: where it ran, as far as is known.
        pool: of that worker.
        stops: whether that worker was told to end: then it hears no remote control.
    """

    how: HowItEnded
    state: str
    worker: str = ""
    pool: str = ""
    stops: bool = False


def end_running(app: Application, message_id: str, within: float = ENDS_WITHIN) -> ForcedEnd:
    """Kill the process of a running job, whose message must be cancelled before: else a retry would begin meanwhile.

    Args:
        app: the application.
        message_id: of the job.
        within: seconds that its worker has.

    Raises:
        RedisError, or an error of the transport: it may have been ended, or not.
    """
    worker = _place(app, message_id, within=2 * SAY_EVERY)
    if worker is None:
        return ForcedEnd("not running", _state(app, message_id))
    name, pool = worker.name, worker.report.pool
    if pool != PREFORK:
        return ForcedEnd("in a thread", "running", name, pool)
    deadline, asks_at = time.monotonic() + within, 0.0
    while (there := worker_of(app, message_id)) is not None and time.monotonic() < deadline:
        if time.monotonic() >= asks_at:  # again: one in a group is not ended before its turn
            app.control.revoke(message_id, terminate=True, signal="SIGKILL", destination=[name])
            asks_at = time.monotonic() + ASK_AGAIN
        time.sleep(LOOK_EVERY)
    if there is not None:
        return ForcedEnd("goes on", "running", name, pool, there.report.stops)
    state = _recorded(app, message_id, within=SAY_EVERY)
    return ForcedEnd("not running" if state in BY_ITSELF else "ended", state, name, pool)


def _place(app: Application, message_id: str, within: float) -> WorkerNow | None:
    """Which worker runs it. A worker reports every two seconds, so one that has just begun it may not have said so."""
    deadline = time.monotonic() + within
    while True:
        found = worker_of(app, message_id)
        if found is not None or _state(app, message_id) not in MAY_RUN or time.monotonic() >= deadline:
            return found
        time.sleep(LOOK_EVERY)


def worker_of(app: Application, message_id: str) -> WorkerNow | None:
    """Which worker says that it runs this job. Raises: RedisError."""
    workers = WorkerReports(app.store).listing()
    names = {job.worker for job in running_jobs(app, workers) if job.id == message_id}
    return next((one for one in workers if one.name in names), None)


def silent_worker_of(app: Application, job: Job) -> WorkerNow | None:
    """Which worker ran this job when it reported last, and has said nothing since. Raises: RedisError."""
    name = claim_name(app, job.task, job.key) if job.task and job.key else ""
    return silent_holders(WorkerReports(app.store).listing()).get(name)


def silence_of(worker: WorkerNow) -> str:
    """What becomes of a job of a silent worker."""
    return f"its worker has said nothing for {worker.age:.0f} s: another one takes the job when its lease is over"


def _recorded(app: Application, message_id: str, within: float) -> str:
    """Its state, once its end is recorded."""
    deadline = time.monotonic() + within
    while (state := _state(app, message_id)) in MAY_RUN and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
    return state


def _state(app: Application, message_id: str) -> str:
    return Job.of(message_id, app).state
