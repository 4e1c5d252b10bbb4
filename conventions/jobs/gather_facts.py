"""`look`: gather what is known of a job.

A job is in the broker, then in the journal, then in SQL. They are asked in this order, and what leaves one is in the next one before it
is gone. So whoever finds it in none knows that it was never sent, or is forgotten.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from conventions.broker.find_message import FoundMessage
from conventions.broker.header_names import ACTOR, ENQUEUED_AT, KEY
from conventions.core.errors import CannotOpen
from conventions.core.sealed_mark import for_people
from conventions.core.time_units import local_time, moment
from conventions.core.value_bounds import fault_of_name, is_text
from conventions.execution.application import Application
from conventions.execution.claim_names import claim_name
from conventions.idempotency.claim_reading import CancelMark, ClaimReading, read_cancel, read_claim
from conventions.jobs.facts import ENDED, Facts, State
from conventions.jobs.why_it_waits import of_waiting
from conventions.pauses.pause_store import Pauses, Target
from conventions.progress.reporter import Progress
from conventions.progress.sealed_notes import with_open_note
from conventions.records.journal import ASIDE
from conventions.sealing.sealed_text import RESULT, open_json
from conventions.sealing.shown_to_people import is_closed
from conventions.storage.layout_version import living

if TYPE_CHECKING:
    from conventions.storage.tables import DeadLetterRow, ExecutionRow, OutboxRow

ENDS: frozenset[State] = ENDED - {
    "partly failed",
    "discarded",
}  # kinds of executions that are ends; each is the state that it leaves
BEGUN = ("succeeded", "retried", "dead", "hung")  # kinds of executions of attempts that have begun
BY_PROGRESS: dict[str, State] = {"done": "succeeded", "dead": "dead", "cancelled": "cancelled"}
BY_BATCH: dict[str, State] = {"dead": "dead", "cancelled": "cancelled"}
OVERRULED: frozenset[State] = frozenset(
    ["succeeded", "duplicate", "unknown"]
)  # a splitter in these leaves the batch to say more
WITHIN = 2.0  # seconds that PostgreSQL has for one statement of a look

NOTHING_HERE = "nothing is known of it: it was never sent, its sender has not committed yet, or its records are gone"
NOTHING_THERE = (
    "its broker shows no single messages: it waits or runs there, or was never sent, or its records are gone"
)
MESSAGE_GONE = "its message is gone from the broker: if it is lost, that is recorded within minutes"
NOT_SHOWN = "its broker does not show when its next attempt is due"
NO_ID = "no message can have this id: it {}"


class _Records(NamedTuple):
    """What the journal and SQL know: the last execution, how many attempts have begun, the dead letter, the row of the outbox."""

    last: "ExecutionRow | None"
    begun: int = 0
    letter: "DeadLetterRow | None" = None
    unsent: "OutboxRow | None" = None


@dataclass(frozen=True)
class Question:
    """One look.

    Attributes:
        app: the application.
        id: of the message.
        sql: whether SQL may be asked; if not, a job that ended a while ago is `unknown`.
        within: seconds that PostgreSQL has for one statement.
    """

    app: Application
    id: str
    sql: bool = True
    within: float = WITHIN


def look(question: Question) -> Facts:
    """What is known of a job now.

    Raises:
        RedisError: Redis does not answer.
        SQLAlchemyError: the job is not in Redis, and SQL does not answer in time.
    """
    app, message_id = question.app, question.id
    if fault := fault_of_name(message_id):
        return Facts(message_id, "unknown", waits_because=NO_ID.format(fault))
    facts = _in_broker(question) or _ended(question)
    progress = with_open_note(app.payload_keys, Progress.of(message_id, app.store))
    # It ended meanwhile: an end is in the journal as soon as in its progress.
    if facts.state == "unknown" and progress.ended:
        facts = _ended(question)
    if progress.started_at:
        facts = _with_progress(app, facts, progress)
    batch = app.batches.states([message_id]).get(message_id)
    return facts if batch is None else _of_batch(facts, batch)


def _with_progress(app: Application, facts: Facts, progress: Progress) -> Facts:
    facts = replace(facts, progress=progress)
    if facts.state != "unknown":
        return facts
    if state := BY_PROGRESS.get(progress.ended):
        return replace(facts, state=state, waits_because="")
    # Where the message can be seen it is gone. Elsewhere a job that has just said how far it is runs.
    reports = time.time() - progress.updated_at < app.timings.lease
    return facts if app.port.keeps_claims or not reports else replace(facts, state="running", waits_because="")


def _of_batch(facts: Facts, batch: str) -> Facts:
    """Of a batch: its splitter ends first, which says nothing of the batch."""
    facts = replace(facts, is_batch=True, has_result=False, result=None)
    if facts.state not in OVERRULED:
        return facts
    progress = facts.progress
    facts = replace(facts, waits_because="", runtime=None, worker=None, ended_at=None)
    if batch in ("splitting", "running"):
        return replace(facts, state="running")
    ended_at = None if progress is None else _at(progress.updated_at)
    partly = batch == "done" and progress is not None and progress.failed
    done: State = "partly failed" if partly else "succeeded"
    return replace(facts, state=BY_BATCH.get(batch, done), ended_at=ended_at)


# A message that has not ended.


def _in_broker(question: Question, *, again: bool = True) -> Facts | None:
    """`None`: it is not there, or its end is recorded."""
    app, message_id = question.app, question.id
    message = app.port.find(message_id)
    if message is None:
        return None
    headers = message.headers
    task, key = _text(headers.get("task")), _text(headers.get(KEY))
    claim = _claim(app, task, key)
    own = claim if claim is not None and claim.message_id == message_id else None
    if again and own is not None and own.state in ("released", "continued") and message.place in ("held", "running"):
        return _in_broker(question, again=False)  # it has moved since it was found
    state = state_of(message, own)
    if state is None:
        return None
    runs = state == "running"
    cancelled = None if runs else read_cancel(app.claims.store, message_id, message.generation)
    if cancelled is not None:
        state = "queued"  # it waits for nothing but a worker that removes it
    has_begun = (
        runs
        or (own is not None and own.state == "running")
        or (claim is not None and _was_begun(message_id, message, claim))
    )
    attempt = message.attempt if own is None else own.attempt
    facts = Facts(
        message_id,
        state,
        task=task,
        queue=message.queue or None,
        actor=_text(headers.get(ACTOR)),
        key=key,
        attempts=attempt if has_begun else message.attempt - 1,
        redrives=message.generation,
        enqueued_at=moment(headers.get(ENQUEUED_AT)),
        due_at=_due_at(message, cancelled),
        started_at=_at(own.began_at) if runs and own is not None else None,
        waits_because=""
        if runs
        else of_waiting(
            message, claim, _pause_of(app, message), workers=_has_workers(app), cancelled=cancelled is not None
        ),
    )
    has_failed = state == "retrying" or (cancelled is not None and message.attempt > 1)
    return _with_last_error(question, facts) if has_failed else facts


def _was_begun(message_id: str, message: FoundMessage, claim: ClaimReading) -> bool:
    """Whether this attempt has begun, and its process or worker has ended: the next start is of the same attempt."""
    now = (message_id, message.generation, message.attempt)
    return any((one.message_id, one.generation, one.attempt) == now for one in claim.interrupted)


def _due_at(message: FoundMessage, cancelled: CancelMark | None) -> datetime | None:
    """When it may run at the earliest; of a cancelled one, when that would have been."""
    if cancelled is not None and cancelled.due_at is not None:
        return _at(cancelled.due_at)
    return None if message.due_at is None or message.why == "pause" else _at(message.due_at)


def _pause_of(app: Application, message: FoundMessage) -> str:
    """Who has paused what it waits for, and why; empty where nothing is paused."""
    pauses = Pauses(app.store).read().pauses
    if not pauses:
        return ""
    name = str(message.headers.get("task"))
    own = str(getattr(app.tasks.get(name), "name", name))  # the message may name an alias
    tasks = (own, own.rpartition(".")[0])  # a part of a batch is paused with it
    for target in (Target("queue", message.queue), *(Target("task", one) for one in tasks)):
        if (pause := pauses.get(target)) is not None:
            return f"its {target.kind} is paused by {pause.actor} since {local_time(pause.since, app.settings.timezone)}: {pause.reason}"
    return ""


def state_of(message: FoundMessage, own: ClaimReading | None) -> State | None:
    """The state of a job whose message is in the broker; `None`: it has ended, and only its message is still there.

    Args:
        message: as it was found.
        own: its claim, if it is this message that has it.
    """
    claimed = "" if own is None or own.generation != message.generation else own.state
    if message.place == "ended" or claimed in ("done", "dead"):
        return None
    if _runs(message, own, claimed):
        return "running"
    if message.why == "key":
        return "parked"
    waits: State = "delayed" if message.place == "delayed" and message.why != "pause" else "queued"
    return "retrying" if message.attempt > 1 else waits


def _runs(message: FoundMessage, own: ClaimReading | None, claimed: str) -> bool:
    if own is None:
        return message.place == "running"
    # The next attempt may be there already, as a copy, when the end of this one is recorded.
    here = message.place in ("held", "running") or own.attempt < message.attempt
    return claimed == "running" and here and not own.lapsed


def _with_last_error(question: Question, facts: Facts) -> Facts:
    """With the end of its last attempt, where SQL answers: its state is known without it."""
    try:
        last = _records(question).last
    except sql_errors():
        return facts
    return facts if last is None else _with_end(facts, last)


# One that has ended, or is not seen.


def _ended(question: Question) -> Facts:
    found = _records(question)
    if found.last is None and (sent := _in_broker(question)) is not None:
        return sent  # it was sent while the records were read, perhaps by the relay
    if found.last is not None:
        return _recorded(question, found.last, found)
    if found.unsent is not None:
        return _unsent(found.unsent)
    why = NOTHING_HERE if question.app.port.keeps_claims else NOTHING_THERE
    return Facts(question.id, "unknown", waits_because=why)


def _records(question: Question) -> _Records:
    """What is recorded of a message. The journal is asked first: an event stays there until it is in SQL."""
    from conventions.records import executions  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import
    from conventions.storage.tables import DeadLetterRow, OutboxRow  # noqa: PLC0415  # the same

    app, message_id = question.app, question.id
    rows = [executions.row_of(entry) for entry in app.journal.find(message_id)]
    if not question.sql or not app.database.is_there:
        return _Records(_last(rows), _begun(rows))
    with app.database.session(read_only=True, within=question.within) as session:
        rows += executions.of_message(session, message_id)
        last = _last(rows)
        letter = unsent = None
        if last is None:
            unsent = session.get(OutboxRow, message_id)
        elif last.kind != "succeeded":
            letter = session.get(DeadLetterRow, message_id)
        session.expunge_all()  # they outlive the session
        is_ours = unsent is not None and unsent.application == app.settings.key_prefix
        return _Records(last, _begun(rows), letter, unsent if is_ours else None)


def _last(rows: "Sequence[ExecutionRow]") -> "ExecutionRow | None":
    """What was recorded last. An end that has the same time as an attempt came after it."""
    known = [one for one in rows if one.kind not in ASIDE]
    return max(known, key=lambda one: (one.ended_at, one.kind in ENDS, one.generation, one.attempt), default=None)


def _begun(rows: "Sequence[ExecutionRow]") -> int:
    """How many attempts have begun since it was sent, or sent again."""
    generation = max((one.generation for one in rows), default=0)
    these = [one for one in rows if one.generation == generation]
    return max((one.attempt for one in these if one.started_at is not None or one.kind in BEGUN), default=0)


def _recorded(question: Question, last: "ExecutionRow", found: _Records) -> Facts:
    """From its last execution, which is an end, or an attempt that another one should follow."""
    app, claim = question.app, _claim(question.app, last.task, last.key)
    is_own = claim is not None and claim.message_id == question.id
    state, why = _state_of_end(last, found.letter), ""
    if state is None and app.port.keeps_claims:
        state, why = "unknown", MESSAGE_GONE
    elif state is None:
        runs = claim is not None and is_own and claim.state == "running" and not claim.lapsed
        state, why = ("running", "") if runs else ("retrying", NOT_SHOWN)
    facts = Facts(
        question.id,
        state,
        task=last.task,
        queue=last.queue,
        actor=last.actor,
        key=last.key,
        attempts=found.begun,
        redrives=last.generation,
        enqueued_at=last.enqueued_at,
        waits_because=why,
    )
    facts = _with_end(facts, last)
    if claim is not None and claim.has_result and (state == "duplicate" or (is_own and state == "succeeded")):
        facts = replace(facts, has_result=True, result=_opened(app, facts, claim.result))
    return facts


def _opened(app: Application, facts: Facts, result: Any) -> Any:
    """The result; where it is sealed and this process has no key for it, as it is. For people: that it is sealed."""
    if is_closed():
        return for_people(result)
    try:
        return open_json(app.payload_keys, result, RESULT, claim_name(app, str(facts.task), str(facts.key)))
    except CannotOpen:
        return result


def _state_of_end(last: "ExecutionRow", letter: "DeadLetterRow | None") -> State | None:
    """`None`: it is no end. The dead letter knows what became of it afterwards."""
    if last.kind not in ENDS:
        return None
    if letter is None or last.kind == "duplicate":
        return last.kind
    if letter.state == "discarded":
        return "discarded"
    if letter.state == "redriven" and last.kind == "dead":
        return "duplicate"  # when it was to be sent again, another message had done it
    return "dead" if letter.state == "dead" else last.kind


def _with_end(facts: Facts, last: "ExecutionRow") -> Facts:
    return replace(
        facts,
        started_at=last.started_at,
        ended_at=last.ended_at,
        worker=last.worker,
        runtime=last.runtime,
        error=last.error,
        error_message=last.error_message,
        traceback=last.traceback,
    )


def _unsent(row: "OutboxRow") -> Facts:
    from conventions.outbox.entry import read_back  # noqa: PLC0415  # only here

    why = "it waits in the outbox: a worker sends it"
    if row.fault:
        why = f"it waits in the outbox, since its last send failed: {row.fault}"
    try:
        headers = read_back(row.headers)
    except ValueError:
        headers = {}
    return Facts(
        row.id,
        "unsent",
        task=row.task,
        actor=_text(headers.get(ACTOR)),
        key=_text(headers.get(KEY)),
        enqueued_at=row.written_at,
        waits_because=why,
    )


# Parts.


def sql_errors() -> tuple[type[Exception], ...]:
    """The errors of SQL. Whoever has never imported it cannot have had one; to import it takes 0.6 s."""
    module = sys.modules.get("sqlalchemy.exc")
    return () if module is None else (module.SQLAlchemyError,)


def _claim(app: Application, task: str | None, key: str | None) -> ClaimReading | None:
    return read_claim(app.claims.store, claim_name(app, task, key)) if task and key else None


def _has_workers(app: Application) -> bool:
    return any(name.startswith("worker ") for name in living(app.store))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value and is_text(value) else None


def _at(value: float) -> datetime:
    return datetime.fromtimestamp(value, UTC)
