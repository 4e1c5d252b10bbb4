"""`Levels`: how things stand now: queues, workers, running jobs, beats, schedules, journal, open letters, memory.

Each part is read by itself. What cannot be read is `None`, and `absent` says why: nobody sees a zero that nobody has counted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from conventions.broker.queue_level import QueueLevel
from conventions.broker.server_checks import servers_of
from conventions.core.bounded_call import BoundedCalls, StillWaits
from conventions.core.deadline import Deadline
from conventions.core.error_text import first_line
from conventions.core.errors import ConventionError
from conventions.core.redis_address import shown
from conventions.core.redis_answers import advice_on, fault_of
from conventions.core.secrets_in_text import without_secrets
from conventions.execution.application import Application, broker_outages
from conventions.execution.purge_queues import known_queues
from conventions.idempotency.claim_reading import ClaimReading, read_claim
from conventions.metrics.read_counts import CauseNow, Counts
from conventions.metrics.series import Series
from conventions.metrics.stalled_and_stopped import (
    NewLetters,
    StalledBatch,
    StoppedRedrive,
    failing_schedules,
    new_letters,
    sent_again,
    stalled_batches,
    stopped_redrives,
)
from conventions.metrics.worker_reports import RunningJob, WorkerNow, WorkerReports, consumers
from conventions.pauses.pause import Pause
from conventions.pauses.pause_store import Kind, Pauses, Target
from conventions.progress.reporter import Progress
from conventions.progress.sealed_notes import with_open_note
from conventions.records.journal import ODD
from conventions.schedules.beat_liveness import Beat, Beats
from conventions.schedules.schedule_module import load_schedule
from conventions.schedules.schedule_summary import ScheduleSummary, summaries_of
from conventions.storage.layout_version import living
from conventions.storage.redis_store import Store
from conventions.storage.tables import DeadLetterRow
from conventions.tasks.aliases import names_of

T = TypeVar("T")

SQL = BoundedCalls()  # of this process: one that waits for a database holds up no further one
REDIS_WITHIN, SQL_WITHIN = 6.0, 5.0  # seconds for all parts of Redis together, and for one question to SQL
AWAY = (RedisConnectionError, RedisTimeoutError)
LOOKED_AT = 500  # running jobs that are looked at; more are counted by their workers


@dataclass(frozen=True, slots=True)
class QueueNow:
    """One queue.

    Attributes:
        level: how many messages it has; see `QueueLevel`.
        retrying: messages that have failed and will be tried again; `None`: unknown.
        consumers: living workers that consume it; `None`: unknown.
    """

    name: str
    level: QueueLevel
    retrying: int | None
    consumers: int | None


@dataclass(frozen=True, slots=True)
class RunningNow:
    """A job that runs.

    Attributes:
        id: empty where only its worker knows it.
        seconds: for how long.
        progress: what it has reported, if anything.
    """

    id: str
    task: str
    queue: str
    worker: str
    seconds: float
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class JournalNow:
    """Events on their way.

    Attributes:
        events, seconds: how many wait to be recorded in SQL, and for how long the oldest has waited.
        uncounted, uncounted_seconds: how many are not counted, 1,000 at the most, and for how long the oldest has waited.
        rejected: how many are put aside: SQL refuses them, or nobody with the keys has written them.
    """

    events: int
    seconds: float
    uncounted: int
    uncounted_seconds: float
    rejected: int


@dataclass(frozen=True, slots=True)
class MemoryNow:
    """The memory of a Redis, in bytes. `limit`: 0 for none. `evicts`: whether it throws data away when it is full."""

    used: int
    limit: int
    evicts: bool


@dataclass(frozen=True, slots=True)
class Levels:
    """How things stand. A part that could not be read is `None`, and `absent` has the reason by its name.

    Attributes:
        unheard: whether a worker lives that reports nothing, as one of the release before; `None`: unknown.
        new_letters: what became of those that failed within the window of the thresholds.
        sent_again: of the causes with dead letters, how many of these have been sent again since, and are not dead now, by fingerprint.
        held: by paused task, how many messages workers hold back; `None` also where the broker does not tell it.
    """

    at: datetime
    queues: Mapping[str, QueueNow] | None = None
    workers: Sequence[WorkerNow] | None = None
    unheard: bool | None = None
    running: Sequence[RunningNow] | None = None
    causes: Sequence[CauseNow] | None = None
    releases: Mapping[str, float] | None = None
    pauses: Mapping[Target, Pause] | None = None
    held: Mapping[str, int] | None = None
    journal: JournalNow | None = None
    beats: Sequence[Beat] | None = None
    schedules: Sequence[ScheduleSummary] | None = None
    letters: Mapping[Series, int] | None = None
    new_letters: Mapping[Series, NewLetters] | None = None
    sent_again: Mapping[str, int] | None = None
    memory: Mapping[str, MemoryNow] | None = None
    stalled: Sequence[StalledBatch] | None = None
    redrives: Sequence[StoppedRedrive] | None = None
    failing: Mapping[str, str] | None = None
    absent: Mapping[str, str] = field(default_factory=dict)

    def pause_of(self, kind: Kind, name: str) -> Pause | None:
        """Why a queue, a task or a worker is paused, if it is, as far as is known."""
        return (self.pauses or {}).get(Target(kind, name))


class LevelReader:
    """Reads the levels of one application.

    Args:
        app: the application; its tasks are loaded.
        known: queues that are shown also where they are empty.
    """

    def __init__(self, app: Application, known: Sequence[str] = ()) -> None:
        self._app, self._known = app, tuple(known)
        self._absent: dict[str, str] = {}
        self._away = ""

    def read(self) -> Levels:
        """Read all parts. Never raises what a server that is away raises."""
        self._absent, self._away = {}, ""
        # One server that stands still is asked by every part: together they wait once.
        with Deadline(REDIS_WITHIN, once=False):
            levels = self._read()
        return replace(levels, absent=dict(self._absent))

    def _read(self) -> Levels:
        app, store = self._app, self._app.store
        counts, reports = Counts(store), WorkerReports(store)
        workers = self._part("workers", reports.listing)
        schedules = self._part("schedules", lambda: summaries_of(app, load_schedule(app)))
        pauses = self._part("pauses", lambda: Pauses(store).read().pauses)
        unheard = None if workers is None else self._part("workers", lambda: _unheard(app, workers))
        queues = self._part("queues", lambda: self._queues(counts, workers, unheard))
        causes = self._part("causes", counts.causes)
        asked = (schedules or (), causes or ())
        of_sql = self._part("letters", lambda: SQL.call("letters", lambda: _of_sql(app, *asked), SQL_WITHIN))
        return Levels(
            at=datetime.now(UTC),
            queues=queues,
            workers=workers,
            unheard=unheard,
            running=None if workers is None else self._part("running", lambda: running_jobs(app, workers)),
            causes=causes,
            releases=self._part("releases", counts.releases),
            pauses=pauses,
            held=self._part("pauses", lambda: _held(app, pauses or {}, queues or {})) if app.port.can.looks else None,
            journal=self._part("journal", lambda: _journal(app, counts)),
            beats=self._part("beats", lambda: Beats(store).listing()),
            schedules=schedules,
            letters=None if of_sql is None else of_sql.letters,
            new_letters=None if of_sql is None else of_sql.new_letters,
            sent_again=None if of_sql is None else of_sql.sent_again,
            redrives=None if of_sql is None else of_sql.redrives,
            failing=None if of_sql is None else of_sql.failing,
            stalled=self._part("stalled batches", lambda: stalled_batches(app)),
            memory=self._part("memory", lambda: _memory(app)),
        )

    def _part(self, name: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except broker_outages(self._app, SQLAlchemyError, OSError, ConventionError, StillWaits, *ODD) as error:
            said = fault_in_words(error, self._app.store)
            if isinstance(error, AWAY):  # it is away once, by whichever error that is seen
                said = self._away = self._away or said
            self._absent[name] = said
            return None

    def _queues(self, counts: Counts, workers: Sequence[WorkerNow] | None, unheard: bool | None) -> dict[str, QueueNow]:
        consumed = None if workers is None else consumers(workers)
        retrying = self._part("retrying", counts.retrying)
        names = {*self._known, *known_queues(self._app), *(consumed or ()), *(retrying or ())}
        levels = self._app.port.levels(sorted(names))
        return {
            name: QueueNow(
                name,
                levels[name],
                None if retrying is None else retrying.get(name, 0),
                None if consumed is None or (unheard is not False and not consumed[name]) else consumed[name],
            )
            for name in sorted(names)
        }


def fault_in_words(error: Exception, store: Store) -> str:
    """Why a part cannot be read, without secrets. Of an error of Redis: which server that is, the one of `store`."""
    server = f"Redis at {shown(store.url)}"
    if isinstance(error, AWAY):
        return f"{server} does not answer: {without_secrets(first_line(error))}"
    return fault_of(error, server) if advice_on(error) else without_secrets(first_line(error))


def _held(app: Application, pauses: Mapping[Target, Pause], queues: Mapping[str, QueueNow]) -> dict[str, int]:
    """How many messages are held back, by paused task: no more than are not due."""
    delayed = sum(one.level.delayed or 0 for one in queues.values())
    tasks = [target.name for target in pauses if target.kind == "task"]
    return {
        one: min(delayed, app.broker.held_back({one} | names_of(app.tasks, frozenset([one])), "paused"))
        for one in tasks
    }


def _unheard(app: Application, workers: Sequence[WorkerNow]) -> bool:
    """Whether a worker lives that reports nothing, as one of the release before: it may consume any queue."""
    known = {f"worker {one.report.host}:{one.report.pid}" for one in workers}
    return any(name.startswith("worker ") and name not in known for name in living(app.store))


def running_jobs(app: Application, workers: Sequence[WorkerNow]) -> list[RunningNow]:
    """What the living workers say that they run, as far as the claims agree; the longest first."""
    now = datetime.now(UTC).timestamp()
    found: dict[str, RunningNow] = {}
    # The newest report last: a worker that was killed may still be named beside the one that has its job now.
    by_age = sorted(workers, key=lambda one: -one.age)
    said = [(one.name, job) for one in by_age if not one.silent for job in one.report.running][:LOOKED_AT]
    for worker, job in said:
        claim = read_claim(app.store, job.claim) if job.claim else None
        if job.claim and (claim is None or claim.state != "running" or claim.lapsed):
            continue  # it has ended since, or waits for another worker
        one = _running_job(app, worker, job, claim, now)
        found[one.id or f"{worker} {len(found)}"] = one
    return sorted(found.values(), key=lambda one: -one.seconds)


def _running_job(app: Application, worker: str, job: RunningJob, claim: ClaimReading | None, now: float) -> RunningNow:
    id_ = claim.message_id if claim is not None else job.id
    since = claim.began_at if claim is not None else job.since
    progress = with_open_note(app.payload_keys, Progress.of(id_, app.store)) if id_ else None
    is_reported = progress is not None and progress.updated_at > 0
    return RunningNow(id_, job.task, job.queue, worker, max(0.0, now - since), progress if is_reported else None)


def _journal(app: Application, counts: Counts) -> JournalNow:
    uncounted, seconds = counts.lag()
    return JournalNow(app.journal.length(), app.journal.age(), uncounted, seconds, app.journal.rejected())


class _OfSql(NamedTuple):
    """What is in SQL, read together: a database that stands still is waited for once."""

    letters: Mapping[Series, int]
    new_letters: Mapping[Series, NewLetters]
    sent_again: Mapping[str, int]
    redrives: Sequence[StoppedRedrive]
    failing: Mapping[str, str]


def _of_sql(app: Application, schedules: Sequence[ScheduleSummary], causes: Sequence[CauseNow]) -> _OfSql:
    if not app.database.is_there:
        return _OfSql({}, {}, {}, (), {})
    with app.database.session(read_only=True, within=SQL_WITHIN) as session:
        failing = failing_schedules(app, session, schedules) if schedules else {}
        new = new_letters(session, app.settings.thresholds.letters_window)
        died = {one.fingerprint: one.since for one in causes if one.dead}
        return _OfSql(_letters(session), new, sent_again(session, died), stopped_redrives(session), failing)


def _letters(session: Session) -> dict[Series, int]:
    """How many letters are dead, by task and queue."""
    row = DeadLetterRow
    query = select(row.task, row.queue, func.count()).where(row.state == "dead").group_by(row.task, row.queue)
    return {Series(task or "", queue or ""): count for task, queue, count in session.execute(query)}


def _memory(app: Application) -> dict[str, MemoryNow]:
    """That of each server, by the name of its setting."""
    found = {}
    for name, store in servers_of(app.port, app.store).items():
        said = store.memory()
        found[name] = MemoryNow(said.used, said.limit, said.policy not in ("noeviction", ""))
    return found
