"""Jobs by state, task, queue, worker, release, sender, argument and time: those that run, those that wait, and those that have ended.

Each place is asked by itself, and bounded: of jobs that wait so many are looked at, and the answer says of how many.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from conventions.broker.header_names import ACTOR, ENQUEUED_AT
from conventions.core.bounded_call import StillWaits
from conventions.core.error_text import first_line
from conventions.core.secrets_in_text import without_secrets
from conventions.core.units import moment
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.filter import Filter
from conventions.execution.application import Application
from conventions.execution.purge import known_queues
from conventions.execution.selection import Selection, found
from conventions.metrics.levels import SQL, SQL_WITHIN, running_jobs
from conventions.metrics.worker_reports import WorkerReports
from conventions.now.job_filter import RUNNING, JobFilter, State, state_of_waiting
from conventions.records import audit_listing
from conventions.records.audit_filter import AuditFilter
from conventions.records.journal import ODD

T = TypeVar("T")

LOOK_AT = 20_000  # messages that wait


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job that waits or runs, or an attempt that has ended.

    Attributes:
        at: of a waiting one, when it was sent; of a running one, when it began; else when it ended.
        runtime: seconds, so far or in all.
        attempt: from 1; 0: it never started.
    """

    id: str
    task: str
    state: State
    queue: str = ""
    actor: str | None = None
    worker: str | None = None
    at: datetime | None = None
    runtime: float | None = None
    attempt: int = 1
    error: str | None = None
    error_message: str | None = None


@dataclass
class JobListing:
    """What was found.

    Attributes:
        lines: running ones first, the longest first; then those that wait, in the order in which they come; then what ended, the latest first.
        looked: messages that wait and were looked at; `None`: none were asked for.
        waiting: messages that wait in all of these queues.
        absent: what could not be asked, and why.
    """

    lines: list[JobLine] = field(default_factory=list)
    looked: int | None = None
    waiting: int = 0
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def is_partial(self) -> bool:
        """Whether more wait than were looked at."""
        return self.looked is not None and self.looked < self.waiting


def list_jobs(app: Application, which: JobFilter, limit: int, look_at: int = LOOK_AT) -> JobListing:
    """The jobs that match, of each place `limit` at the most. Never raises what a server that is away raises.

    Args:
        app: the application, with its tasks loaded.
        which: the filter.
        limit: jobs.
        look_at: messages that wait and are looked at.
    """
    listing = JobListing()
    if which.has_running:
        listing.lines += _part(listing, "running jobs", lambda: _running(app, which))[:limit]
    if which.has_waiting:
        listing.lines += _part(listing, "waiting jobs", lambda: _waiting(app, which, limit, look_at, listing))
    if which.has_ended:
        ended = _part(listing, "ended jobs", lambda: SQL.call("jobs", lambda: _ended(app, which, limit), SQL_WITHIN))
        listing.lines += ended
    return listing


def _part(listing: JobListing, name: str, read: Callable[[], list[T]]) -> list[T]:
    try:
        return read()
    except (RedisError, SQLAlchemyError, OSError, StillWaits, *ODD) as error:
        listing.absent[name] = without_secrets(first_line(error))
        return []


def _running(app: Application, which: JobFilter) -> list[JobLine]:
    workers = WorkerReports(app.store).listing()
    releases = {one.name: one.report.release or "" for one in workers}
    lines = []
    for job in running_jobs(app, workers):
        if not which.names(job.task) or (which.queue and job.queue != which.queue):
            continue
        if (which.worker and job.worker != which.worker) or (which.release and releases[job.worker] != which.release):
            continue
        message = app.port.find(job.id) if job.id else None
        actor = None if message is None else message.headers.get(ACTOR)
        if which.arguments or (which.actor and actor != which.actor):
            continue  # its arguments are with its process
        began = datetime.fromtimestamp(datetime.now(UTC).timestamp() - job.seconds, UTC)
        if which.within(began):
            attempt = 1 if message is None else message.attempt
            lines.append(JobLine(job.id, job.task, RUNNING, job.queue, actor, job.worker, began, job.seconds, attempt))
    return lines


def _waiting(app: Application, which: JobFilter, limit: int, look_at: int, listing: JobListing) -> list[JobLine]:
    if not app.port.can.looks:
        listing.absent["waiting jobs"] = "this broker shows no single messages"
        return []
    queues = (which.queue,) if which.queue else tuple(known_queues(app))
    listing.waiting = sum(one.ready + one.delayed for one in map(app.broker.sizes, queues))
    listing.looked = min(look_at, listing.waiting)
    return list(
        _of_messages(app, which, limit, Selection(queues, arguments=which.arguments, actor=which.actor), look_at)
    )


def _of_messages(
    app: Application, which: JobFilter, limit: int, selection: Selection, look_at: int
) -> Iterator[JobLine]:
    for one in found(app, selection, look_at):
        if limit <= 0:
            return
        headers, state = one.headers, state_of_waiting(one)
        sent = moment(headers.get(ENQUEUED_AT))
        task = str(headers.get("task") or "")
        if which.names(task) and which.state in ("", state) and which.within(sent):
            limit -= 1
            yield JobLine(
                one.message_id, task, state, one.queue, headers.get(ACTOR), at=sent, attempt=max(one.attempt, 1)
            )


def _ended(app: Application, which: JobFilter, limit: int) -> list[JobLine]:
    if not app.database.is_there:
        return []
    if which.arguments:
        return _letters(app, which, limit) if which.state in ("", "dead") else []
    words: dict[str, Any] = {
        name: getattr(which, name) or None for name in ("task", "queue", "worker", "release", "actor")
    }
    wanted = AuditFilter("executions", outcome=which.state or None, since=which.since, until=which.until, **words)
    with app.database.session(read_only=True, within=SQL_WITHIN) as session:
        return [
            JobLine(
                one.id or "", one.task or "", one.outcome or "", one.queue or "", one.actor, one.worker, one.at, one.runtime, one.attempt or 0,
                one.error, one.error_message,
            )
            for one in audit_listing.listing(session, wanted, limit)
        ]  # fmt: skip


def _letters(app: Application, which: JobFilter, limit: int) -> list[JobLine]:
    wanted = Filter(state="dead", task=which.task or None, queue=which.queue or None, arguments=which.arguments)
    with app.database.session(read_only=True, within=SQL_WITHIN) as session:
        return [
            JobLine(
                one.id, one.task or "", "dead", one.queue or "", one.actor, None, one.last_failed_at, None, one.attempts, one.error,
                one.error_message,
            )
            for one in dead_letters.listing(session, wanted, limit)
            if (not which.actor or one.actor == which.actor) and which.within(one.last_failed_at) and not (which.worker or which.release)
        ]  # fmt: skip
