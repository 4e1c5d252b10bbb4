"""What is at workers: messages that one has read, and jobs that run, also those that no living worker names."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple, TypeAlias

from conventions.broker.delivery_names import DeliveryNames
from conventions.broker.header_names import ACTOR, KEY
from conventions.broker.waiting_messages import Waiting, WaitingPlace
from conventions.execution.application import Application
from conventions.execution.claim_names import claim_name
from conventions.execution.waiting_selection import Search, Selection
from conventions.idempotency.claim_reading import ClaimReading, read_claim
from conventions.metrics.state_now import running_jobs
from conventions.metrics.worker_reports import WorkerReports
from conventions.now.job_filter import RUNNING, JobFilter, queues_of
from conventions.now.job_line import JobLine, text_of_header

AT_WORKERS: tuple[WaitingPlace, ...] = ("inflight",)


class AtWorker(NamedTuple):
    """A message that a worker has read and that has not ended. `claim`: of its job, if that runs; else it waits there."""

    message: Waiting
    claim: ClaimReading | None


AtWorkers: TypeAlias = Callable[[], Sequence[AtWorker]]


def messages_at_workers(app: Application, which: JobFilter, look_at: int) -> Sequence[AtWorker]:
    """Those that match in arguments and sender; none where the broker shows none."""
    if not app.port.can.looks:
        return ()
    selection = Selection(queues_of(app, which), arguments=which.arguments, codes=which.codes, actor=which.actor)
    return list(_not_ended(app, Search(app, selection, look_at, AT_WORKERS)))


def _not_ended(app: Application, messages: Iterable[Waiting]) -> Iterator[AtWorker]:
    for one in messages:
        task, key = text_of_header(one.headers.get("task")), text_of_header(one.headers.get(KEY))
        name = claim_name(app, task, key) if one.at_worker == RUNNING else ""
        claim = _claim_of(app, one, name) if name else None
        state = "" if claim is None else claim.state
        if one.at_worker != "ended" and state not in ("done", "dead"):
            yield AtWorker(one, claim if claim is not None and state == RUNNING and not claim.lapsed else None)


def _claim_of(app: Application, one: Waiting, name: str) -> ClaimReading | None:
    """The claim of a message, if it has one."""
    claim = read_claim(app.store, name)
    is_own = claim is not None and (claim.message_id, claim.generation) == (one.message_id, one.generation)
    return claim if is_own else None


def jobs_that_run(app: Application, which: JobFilter, limit: int, at_workers: AtWorkers) -> list[JobLine]:
    """Those that their workers name, then those that only their messages show: of a worker that was killed, or that began them just now."""
    workers = WorkerReports(app.store).listing()
    releases = {one.name: one.report.release or "" for one in workers}
    named = running_jobs(app, workers)
    is_named = {job.id for job in named}
    matching = {one.message.message_id for one in at_workers()} if which.by_arguments else is_named
    lines: list[JobLine] = []
    for job in named:
        if len(lines) >= limit:
            break
        began = datetime.fromtimestamp(datetime.now(UTC).timestamp() - job.seconds, UTC)
        if job.id not in matching or not which.fits_running(
            job.task, job.queue, job.worker, releases[job.worker], began
        ):
            continue
        message = app.port.find(job.id) if job.id else None
        actor = None if message is None else text_of_header(message.headers.get(ACTOR))
        if not which.actor or actor == which.actor:
            attempt = 1 if message is None else message.attempt
            release = releases[job.worker] or None
            lines.append(
                JobLine(job.id, job.task, RUNNING, job.queue, actor, job.worker, release, began, job.seconds, attempt)
            )
    if len(lines) >= limit:
        return lines
    names = DeliveryNames(app.claims.store)
    others = ((one.message, one.claim) for one in at_workers() if one.message.message_id not in is_named)
    fitting = (line for message, claim in others if claim and (line := _of_nobody(which, message, claim, names)))
    return [*lines, *islice(fitting, limit - len(lines))]


def _of_nobody(which: JobFilter, message: Waiting, claim: ClaimReading, names: DeliveryNames) -> JobLine | None:
    """A job that runs, and that no living worker names; `None`: it does not match."""
    worker, release = (one or "" for one in names.worker_of(claim.token))
    task, actor = text_of_header(message.headers.get("task")), text_of_header(message.headers.get(ACTOR))
    began = datetime.fromtimestamp(claim.began_at, UTC) if claim.began_at else None
    runtime = None if began is None else max(0.0, (datetime.now(UTC) - began).total_seconds())
    attempt = max(message.attempt, 1)
    if (
        not which.names(task)
        or not which.within(began)
        or which.worker not in ("", worker)
        or which.release not in ("", release)
    ):
        return None
    return JobLine(
        message.message_id,
        task,
        RUNNING,
        message.queue,
        actor,
        worker or None,
        release or None,
        began,
        runtime,
        attempt,
    )
