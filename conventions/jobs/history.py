"""`history`: the attempts of a job, how each ended, and what it has logged."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from conventions.attempt_log.head_and_tail import LogLine, read
from conventions.attempt_log.live_logs import LiveLogs
from conventions.broker.delivery_names import DeliveryNames
from conventions.core.errors import CannotOpen
from conventions.core.sealed_mark import SHOWN
from conventions.execution.application import Application
from conventions.execution.claim_names import claim_name
from conventions.idempotency.claim_reading import ClaimReading, read_claim
from conventions.idempotency.interrupted_start import NO_SIGN, InterruptedStart
from conventions.jobs.facts import ENDED, Facts
from conventions.jobs.gather_facts import WITHIN
from conventions.records.journal import INTERRUPTED, Event
from conventions.sealing.sealed_text import LOG, open_text
from conventions.sealing.shown_to_people import is_closed

if TYPE_CHECKING:
    from conventions.storage.tables import ExecutionRow

CLOCKS = timedelta(seconds=2)  # by which the clocks of a worker and of Redis may differ here
RUNNING = "running"


@dataclass(frozen=True, slots=True)
class JobAttempt:
    """One attempt at a job. What is not known is `None`.

    Attributes:
        redrive: 0, and one more each time that the job was sent again as a dead letter.
        attempt: from 1; 0: it never started.
        outcome: the kind of its execution, such as `retried`; `interrupted`: its process or its worker ended before it; `running`; `None`: none is
            recorded yet, or a long job went on in another turn.
        worker: that ran it.
        release: of the code that ran it.
        wait: seconds in which it lacked nothing but a free worker.
        runtime: seconds.
        fingerprint: of the cause of its failure.
        log: what it has logged, where that is kept.
    """

    redrive: int
    attempt: int
    outcome: str | None = None
    worker: str | None = None
    release: str | None = None
    wait: float | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    runtime: float | None = None
    error: str | None = None
    error_message: str | None = None
    fingerprint: str | None = None
    log: tuple[LogLine, ...] = ()


class _Log(NamedTuple):
    """The lines of one run."""

    redrive: int
    attempt: int
    token: str
    lines: tuple[LogLine, ...]
    ended: bool

    @property
    def first_at(self) -> datetime | None:
        with suppress(ValueError):
            return next((datetime.fromisoformat(one.time) for one in self.lines if one.time), None)
        return None


def history(app: Application, facts: Facts, *, logs: bool, sql: bool) -> tuple[JobAttempt, ...]:
    """The attempts of a job, the first one first.

    Args:
        app: its application.
        facts: what is known of it.
        logs: whether what they have logged is read.
        sql: whether SQL is asked; else only what is not recorded there yet is found.

    Raises:
        RedisError: Redis does not answer.
        SQLAlchemyError: SQL does not answer.
    """
    claim = _own_claim(app, facts)  # before what is recorded: what it keeps is written there meanwhile
    kept, opens = _kept_starts(claim, facts), opener(app, facts.id)
    live = (
        [_Log(*one.name[1:], read(one.text, opens), one.ended) for one in LiveLogs(app.store).of(facts.id)]
        if logs
        else []
    )
    rows, stored = _recorded(app, facts.id, logs=logs, sql=sql)
    names = {one[:3] for one in live}
    found = [*live, *(one for one in stored if (one.redrive, one.attempt, one.token) not in names)]
    attempts = []
    for row in rows:
        mine = [one for one in found if _is_of(row, facts.id, one)]
        found = [one for one in found if one not in mine]
        attempts.append(_of_row(row, [line for one in mine for line in one.lines]))
    ids = {row.id for row in rows}
    for start in (one for one in kept if not ids & {_id_of(one), _id_of(one, "hung")}):
        mine = [one for one in found if one[:3] == (start.generation, start.attempt, start.token)]
        found = [one for one in found if one not in mine]
        attempts.append(_of_start(app, start, [line for one in mine for line in one.lines]))
    running = _running(found, facts)
    attempts += [_of_log(one, facts, runs=one is running) for one in found]
    if facts.state == RUNNING and not any(one.outcome == RUNNING for one in attempts):
        attempts.append(JobAttempt(facts.redrives, facts.attempts, RUNNING, started_at=facts.started_at))
    attempts = [_with_worker(app, one, claim, facts) if one.outcome == RUNNING else one for one in attempts]
    return tuple(sorted(attempts, key=lambda one: (one.redrive, one.attempt, _moment_of(one))))


def opener(app: Application, message_id: str) -> Callable[[str], str]:
    """What opens a line of the log of a sealed job; for people, and where this process has no key for it, it says that it is sealed."""

    def opened(text: str) -> str:
        if is_closed():
            return SHOWN
        try:
            return open_text(app.payload_keys, text, LOG, message_id)
        except CannotOpen:
            return SHOWN

    return opened


def _own_claim(app: Application, facts: Facts) -> ClaimReading | None:
    """The claim of its key; `None`: nothing is remembered, or the key is not known."""
    if not facts.task or not facts.key:
        return None
    return read_claim(app.claims.store, claim_name(app, facts.task, facts.key))


def _kept_starts(claim: ClaimReading | None, facts: Facts) -> list[InterruptedStart]:
    """Starts without an outcome of which only the claim tells, until the next start writes them to the journal."""
    if claim is None:
        return []
    found = [one for one in claim.interrupted if one.message_id == facts.id]
    is_open = claim.message_id == facts.id and claim.state == RUNNING and claim.lapsed
    if is_open and facts.state not in (RUNNING, *ENDED):
        began_at, until = (datetime.fromtimestamp(one, UTC) for one in (claim.began_at, claim.until))
        found.append(
            InterruptedStart(b"", claim.token, facts.id, claim.generation, claim.attempt, began_at, until, NO_SIGN)
        )
    return found


def _with_worker(app: Application, attempt: JobAttempt, claim: ClaimReading | None, facts: Facts) -> JobAttempt:
    """The attempt that runs, with the worker that holds its claim."""
    names = (facts.id, RUNNING, attempt.redrive, attempt.attempt)
    if claim is None or (claim.message_id, claim.state, claim.generation, claim.attempt) != names:
        return attempt
    worker, release = DeliveryNames(app.claims.store).worker_of(claim.token)
    return replace(attempt, worker=worker, release=release)


def _id_of(start: InterruptedStart, kind: str = INTERRUPTED) -> str:
    """Of the event that it becomes, or has become."""
    event = Event(start.message_id, kind, generation=start.generation, attempt=start.attempt, token=start.token)
    return event.id


def _of_start(app: Application, start: InterruptedStart, lines: Iterable[LogLine]) -> JobAttempt:
    worker, release = DeliveryNames(app.claims.store).worker_of(start.token)
    return JobAttempt(
        start.generation,
        start.attempt,
        INTERRUPTED,
        worker=worker,
        release=release,
        started_at=start.began_at,
        ended_at=start.ended_at,
        error=start.failure.error,
        error_message=start.why,
        log=tuple(lines),
    )


def _recorded(app: Application, message_id: str, *, logs: bool, sql: bool) -> "tuple[list[ExecutionRow], list[_Log]]":
    """The journal is asked first: an event stays there until it is in SQL."""
    from conventions.records import attempt_logs, executions  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    rows = {(row := executions.row_of(entry)).id: row for entry in app.journal.find(message_id, every=True)}
    stored: list[_Log] = []
    if sql and app.database.is_there:
        with app.database.session(read_only=True, within=WITHIN) as session:
            rows |= {row.id: row for row in executions.of_message(session, message_id)}
            if logs:
                these = attempt_logs.of_message(session, message_id)
                stored = [
                    _Log(one.generation, one.attempt, one.token, read(one.lines, opener(app, message_id)), ended=True)
                    for one in these
                ]
            session.expunge_all()  # they outlive the session
    return sorted(rows.values(), key=lambda row: (row.generation, row.attempt, row.fence, row.ended_at)), stored


def _is_of(row: "ExecutionRow", message_id: str, log: _Log) -> bool:
    """Whether a run ended so: the id of an execution is made of the names of its run."""
    if (row.generation, row.attempt) != (log.redrive, log.attempt):
        return False
    event = Event(message_id, row.kind, generation=log.redrive, attempt=log.attempt, token=log.token)
    return event.id == row.id


def _of_row(row: "ExecutionRow", lines: Iterable[LogLine]) -> JobAttempt:
    return JobAttempt(
        row.generation,
        row.attempt,
        row.kind,
        worker=row.worker,
        release=row.release,
        wait=row.wait,
        started_at=row.started_at,
        ended_at=row.ended_at,
        runtime=row.runtime,
        error=row.error,
        error_message=row.error_message,
        fingerprint=row.fingerprint,
        log=tuple(lines),
    )


def _running(logs: Iterable[_Log], facts: Facts) -> _Log | None:
    """Of the runs without an outcome, the one that runs now. An earlier one of the same attempt may be there, whose process was killed."""
    if facts.state != RUNNING:
        return None
    present = (facts.redrives, facts.attempts)
    these = [
        (one.first_at, one) for one in logs if (one.redrive, one.attempt) == present and not one.ended and one.first_at
    ]
    if not these:
        return None
    first_at, latest = max(these, key=lambda one: one[0])
    return latest if facts.started_at is None or first_at >= facts.started_at - CLOCKS else None


def _of_log(log: _Log, facts: Facts, *, runs: bool) -> JobAttempt:
    """A run whose outcome is not recorded."""
    started_at = facts.started_at if runs else log.first_at
    return JobAttempt(log.redrive, log.attempt, RUNNING if runs else None, started_at=started_at, log=log.lines)


def _moment_of(attempt: JobAttempt) -> float:
    """When it began, as far as that is known; else it comes last among those of its number."""
    moment = attempt.started_at or attempt.ended_at
    return float("inf") if moment is None else moment.timestamp()
