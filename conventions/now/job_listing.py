"""Jobs by state, task, queue, worker, release, sender, argument and time: those that run, those that wait, and those that have ended.

Each place is asked by itself, and bounded: of jobs that wait so many are looked at, and the answer says of how many.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from itertools import chain, islice
from typing import Any, NamedTuple, TypeAlias

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from conventions.broker.header_names import ACTOR, ENQUEUED_AT, KEY
from conventions.broker.waiting_messages import Waiting, WaitingPlace
from conventions.core.bounded_call import StillWaits
from conventions.core.chunking import batched
from conventions.core.error_text import clean, first_line
from conventions.core.secrets_in_text import without_secrets
from conventions.core.units import moment
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.filter import Filter
from conventions.execution.application import Application
from conventions.execution.purge import known_queues
from conventions.execution.selection import Search, Selection
from conventions.idempotency.claim_reading import ClaimReading, read_claim
from conventions.jobs.look import claim_name
from conventions.metrics.levels import SQL, SQL_WITHIN, running_jobs
from conventions.metrics.worker_reports import WorkerNow, WorkerReports, silent_holders
from conventions.now.job_filter import RUNNING, HeldBack, JobFilter, State, state_of_waiting
from conventions.records import audit_listing, executions
from conventions.records.audit_filter import AuditFilter
from conventions.records.journal import ODD
from conventions.storage.database import utc_now

AT_WORKERS: tuple[WaitingPlace, ...] = ("inflight",)
READY_FIRST: tuple[WaitingPlace, ...] = ("queue", "delayed")
PLACES_OF: dict[str, tuple[WaitingPlace, ...]] = {"queued": ("queue",), "delayed": ("delayed",)}

LOOK_AT = 20_000  # messages that wait
AT_ONCE = 16  # questions to SQL
OF_ERRORS = 500  # retrying jobs whose errors one statement reads
LETTERS = 1000  # that are looked at for their sender


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job that waits or runs, or an attempt that has ended.

    Attributes:
        at: of a waiting one, when it was sent; of a running one, when it began; else when it ended.
        runtime: seconds, so far or in all.
        attempt: from 1; 0: it never started.
        error, error_message: of the last attempt that failed; of a retrying one, as far as it is recorded.
        due_at: of a waiting one, when it may run at the earliest, where that is later than now; of one that only a pause holds back, nothing.
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
    due_at: datetime | None = None


@dataclass
class JobListing:
    """What was found.

    Attributes:
        lines: running ones first, the longest first; then those that wait, in the order in which they come; then what ended, the latest first.
        looked: messages that wait and were looked at; `None`: none were asked for.
        waiting: messages that wait in all of these queues.
        absent: what could not be asked, and why.
        more: those of its parts of which more match than were asked for.
    """

    lines: list[JobLine] = field(default_factory=list)
    looked: int | None = None
    waiting: int = 0
    absent: dict[str, str] = field(default_factory=dict)
    more: list[str] = field(default_factory=list)

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
    asked = limit + 1
    at_workers = cache(lambda: _at_workers(app, which, look_at))
    if which.has_running:
        _add(listing, "running jobs", limit, lambda: _running(app, which, asked, at_workers))
    if which.has_waiting:
        _add(
            listing,
            "waiting jobs",
            limit,
            lambda: _waiting(app, which, asked, look_at=look_at, listing=listing, at_workers=at_workers),
        )
    if which.has_ended:
        name = f"jobs {hash(which) % AT_ONCE}"  # other people's questions are asked beside this one
        _add(listing, "ended jobs", limit, lambda: SQL.call(name, lambda: _ended(app, which, asked), SQL_WITHIN))
    _add_last_errors(app, listing, f"errors {hash(which) % AT_ONCE}")
    return listing


def _add_last_errors(app: Application, listing: JobListing, name: str) -> None:
    """Those of the retrying jobs that are shown, and of no others."""
    ids = [one.id for one in listing.lines if one.state == "retrying"]
    if not ids or not app.database.is_there:
        return

    def read() -> dict[str, tuple[str | None, str | None]]:
        found: dict[str, tuple[str | None, str | None]] = {}
        with app.database.session(read_only=True, within=SQL_WITHIN) as session:
            for some in batched(ids, OF_ERRORS):
                last = executions.last_of_each(session, some)
                found |= {id_: (row.error, row.error_message) for id_, row in last.items()}
        return found

    try:
        errors = SQL.call(name, read, SQL_WITHIN)
    except (SQLAlchemyError, OSError, StillWaits, *ODD) as error:
        listing.absent["errors of retrying jobs"] = without_secrets(first_line(error))
        return
    listing.lines = [
        replace(one, error=errors[one.id][0], error_message=errors[one.id][1])
        if one.state == "retrying" and one.id in errors
        else one
        for one in listing.lines
    ]


def _add(listing: JobListing, name: str, limit: int, read: Callable[[], list[JobLine]]) -> None:
    try:
        found = read()
    except (RedisError, SQLAlchemyError, OSError, StillWaits, *ODD) as error:
        listing.absent[name] = without_secrets(first_line(error))
        return
    listing.lines += found[:limit]
    if len(found) > limit:
        listing.more.append(name)


class _AtWorker(NamedTuple):
    """A message that a worker has read and that has not ended. `claim`: of its job, if that runs; else it waits there. `name`: of the claim."""

    message: Waiting
    claim: ClaimReading | None
    name: str = ""


_AtWorkers: TypeAlias = Callable[[], Sequence[_AtWorker]]


def _at_workers(app: Application, which: JobFilter, look_at: int) -> Sequence[_AtWorker]:
    """Those that match in arguments and sender; none where the broker shows none."""
    if not app.port.can.looks:
        return ()
    selection = Selection(_queues(app, which), arguments=which.arguments, actor=which.actor)
    return list(_not_ended(app, Search(app, selection, look_at, AT_WORKERS)))


def _not_ended(app: Application, messages: Iterable[Waiting]) -> Iterator[_AtWorker]:
    for one in messages:
        task, key = _text(one.headers.get("task")), _text(one.headers.get(KEY))
        name = claim_name(app, task, key) if one.at_worker == RUNNING else ""
        claim = _claim_of(app, one, name) if name else None
        state = "" if claim is None else claim.state
        if one.at_worker != "ended" and state not in ("done", "dead"):
            yield _AtWorker(one, claim if claim is not None and state == RUNNING and not claim.lapsed else None, name)


def _claim_of(app: Application, one: Waiting, name: str) -> ClaimReading | None:
    """The claim of a message, if it has one."""
    claim = read_claim(app.store, name)
    is_own = claim is not None and (claim.message_id, claim.generation) == (one.message_id, one.generation)
    return claim if is_own else None


def _running(app: Application, which: JobFilter, limit: int, at_workers: _AtWorkers) -> list[JobLine]:
    """Those that their workers name, then those that only their messages show: of a worker that was killed, or that began them just now."""
    workers = WorkerReports(app.store).listing()
    releases = {one.name: one.report.release or "" for one in workers}
    named = running_jobs(app, workers)
    is_named = {job.id for job in named}
    matching = {one.message.message_id for one in at_workers()} if which.arguments else is_named
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
        actor = None if message is None else _text(message.headers.get(ACTOR))
        if not which.actor or actor == which.actor:
            attempt = 1 if message is None else message.attempt
            lines.append(JobLine(job.id, job.task, RUNNING, job.queue, actor, job.worker, began, job.seconds, attempt))
    if len(lines) >= limit:
        return lines
    silent = silent_holders(workers)
    others = (one for one in at_workers() if one.claim and one.message.message_id not in is_named)
    fitting = (line for one in others if (line := _of_nobody(which, one, silent)) is not None)
    return [*lines, *islice(fitting, limit - len(lines))]


def _of_nobody(which: JobFilter, one: _AtWorker, silent: Mapping[str, WorkerNow]) -> JobLine | None:
    """A job that runs, and that no living worker names; `None`: it does not match."""
    message, claim, name = one
    holder = silent.get(name)
    worker, release = (holder.name, holder.report.release or "") if holder is not None else ("", "")
    task, actor = _text(message.headers.get("task")), _text(message.headers.get(ACTOR))
    began = datetime.fromtimestamp(claim.began_at, UTC) if claim is not None and claim.began_at else None
    runtime = None if began is None else max(0.0, (datetime.now(UTC) - began).total_seconds())
    attempt = max(message.attempt, 1)
    if (
        not which.names(task)
        or not which.within(began)
        or which.worker not in ("", worker)
        or which.release not in ("", release)
    ):
        return None
    return JobLine(message.message_id, task, RUNNING, message.queue, actor, worker or None, began, runtime, attempt)


def _queues(app: Application, which: JobFilter) -> tuple[str, ...]:
    return (which.queue,) if which.queue else tuple(known_queues(app))


def _text(value: Any) -> str:
    """A header as text that a page can show, whoever wrote it."""
    return clean(str(value)) if value is not None else ""


def _waiting(
    app: Application, which: JobFilter, limit: int, *, look_at: int, listing: JobListing, at_workers: _AtWorkers
) -> list[JobLine]:
    if not app.port.can.looks:
        listing.absent["waiting jobs"] = "this broker shows no single messages"
        return []
    queues = _queues(app, which)
    held_back = HeldBack(app)
    places = READY_FIRST if held_back.tasks else PLACES_OF.get(which.state, READY_FIRST)
    sizes = [app.broker.sizes(queue) for queue in queues]
    listing.waiting = sum(one.ready * ("queue" in places) + one.delayed * ("delayed" in places) for one in sizes)
    search = Search(app, Selection(queues, arguments=which.arguments, actor=which.actor), look_at, places)
    read = (one.message for one in at_workers() if one.claim is None)  # they come before the others
    lines = list(islice(_of_messages(which, chain(read, search), held_back), limit))
    # Workers take some meanwhile, so fewer may be found than were counted.
    listing.looked = min(search.looked, listing.waiting) if search.is_cut else listing.waiting
    return lines


def _of_messages(which: JobFilter, search: Iterable[Waiting], held_back: HeldBack) -> Iterator[JobLine]:
    seen = set()  # a worker may have given one back meanwhile
    for one in search:
        headers = one.headers
        if one.tag in seen or not which.names(_text(headers.get("task"))):
            continue
        seen.add(one.tag)
        is_held = held_back.holds(one)
        state = state_of_waiting(one, held_back=is_held)
        sent, task = moment(headers.get(ENQUEUED_AT)), _text(headers.get("task"))
        if which.state in ("", state) and which.within(sent):
            actor, attempt = _text(headers.get(ACTOR)), max(one.attempt, 1)
            due_at = None if is_held else _due_at(one)
            yield JobLine(one.message_id, task, state, one.queue, actor, at=sent, attempt=attempt, due_at=due_at)


def _due_at(one: Waiting) -> datetime | None:
    """When a message is due that is not yet."""
    if one.place != "delayed":
        return None
    try:
        return datetime.fromtimestamp(float(one.score) / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # another program wrote it
        return None


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
    if which.worker or which.release:  # a letter has neither
        return []
    now = utc_now()
    wanted = Filter(
        state="dead", task=which.task or None, queue=which.queue or None, arguments=which.arguments,
        newer_than=None if which.since is None else now - which.since, older_than=None if which.until is None else now - which.until,
    )  # fmt: skip
    most = LETTERS if which.actor else limit
    with app.database.session(read_only=True, within=SQL_WITHIN) as session:
        found = [
            one
            for one in dead_letters.listing(session, wanted, most, brief=True)
            if not which.actor or one.actor == which.actor
        ]
        return [
            JobLine(
                one.id, one.task or "", "dead", one.queue or "", one.actor, None, one.last_failed_at, None, one.attempts, one.error,
                one.error_message,
            )
            for one in found[:limit]
        ]  # fmt: skip
