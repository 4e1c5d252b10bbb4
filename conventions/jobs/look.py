"""`look`: gather what is known of a job.

A job is in the broker, then in the journal, then in SQL. They are asked in this order, and what leaves one is in the next one before it
is gone. So whoever finds it in none knows that it was never sent, or is forgotten.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from conventions.broker.header_names import ACTOR, ENQUEUED_AT, KEY
from conventions.broker.one_message import FoundMessage
from conventions.core.units import moment
from conventions.execution.application import Application
from conventions.idempotency.claim_reading import ClaimReading, read_claim
from conventions.jobs.facts import Facts, State
from conventions.jobs.why_it_waits import of_waiting
from conventions.progress.reporter import Progress
from conventions.storage.layout_version import living

if TYPE_CHECKING:
    from conventions.storage.tables import DeadLetterRow, ExecutionRow, OutboxRow

BY_KIND: dict[str, State] = {
    "succeeded": "succeeded",
    "duplicate": "duplicate",
    "dead": "dead",
    "cancelled": "cancelled",
    "revoked": "revoked",
    "expired": "expired",
    "purged": "purged",
    "lost": "lost",
}  # of an execution that is an end
BY_PROGRESS: dict[str, State] = {"done": "succeeded", "dead": "dead", "cancelled": "cancelled", "": "running"}
BY_BATCH: dict[str, State] = {
    "splitting": "running",
    "running": "running",
    "done": "succeeded",
    "dead": "dead",
    "cancelled": "cancelled",
}
SPLIT: frozenset[State] = frozenset(
    ["succeeded", "duplicate", "unknown"]
)  # of a splitter, which leave the batch to say more


class _Records(NamedTuple):
    """What the journal and SQL know: the last execution, the dead letter, the row of the outbox."""

    last: "ExecutionRow | None"
    letter: "DeadLetterRow | None" = None
    unsent: "OutboxRow | None" = None


def look(app: Application, message_id: str, *, records: bool = True) -> Facts:
    """What is known of a job now.

    Args:
        app: the application.
        message_id: of its message.
        records: whether SQL may be asked; if not, a job that ended a while ago is `unknown`.

    Raises:
        RedisError: Redis does not answer.
        SQLAlchemyError: the job is not in Redis, and SQL does not answer.
    """
    facts = _in_broker(app, message_id, records=records) or _ended(app, message_id, records=records)
    progress = Progress.of(message_id, app.store)
    if progress.started_at:
        facts = replace(facts, progress=progress)
        if facts.state == "unknown":
            facts = replace(facts, state=BY_PROGRESS.get(progress.ended, "running"), waits_because="")
    batch = app.batches.states([message_id]).get(message_id)
    if batch is not None:
        state = BY_BATCH.get(batch, facts.state) if facts.state in SPLIT else facts.state
        facts = replace(facts, is_batch=True, state=state, waits_because="" if state in SPLIT else facts.waits_because)
    return facts


# A message that has not ended.


def _in_broker(app: Application, message_id: str, *, records: bool) -> Facts | None:
    """`None`: it is not there, or its end is recorded."""
    message = app.port.find(message_id)
    if message is None:
        return None
    headers = message.headers
    task, key = _text(headers.get("task")), _text(headers.get(KEY))
    claim = _claim(app, task, key)
    own = claim if claim is not None and claim.message_id == message_id else None
    state = state_of(message, own)
    if state is None:
        return None
    runs = state == "running"
    has_begun = runs or (own is not None and own.state == "running")
    facts = Facts(
        message_id,
        state,
        task=task,
        queue=message.queue,
        actor=_text(headers.get(ACTOR)),
        key=key,
        attempts=message.attempt if has_begun else message.attempt - 1,
        redrives=message.generation,
        enqueued_at=moment(headers.get(ENQUEUED_AT)),
        due_at=None if message.due_at is None else _seconds(message.due_at),
        started_at=_seconds(own.began_at) if runs and own is not None else None,
        waits_because="" if runs else of_waiting(message, claim, workers=_has_workers(app)),
    )
    return _with_last_error(app, facts, records=records) if state == "retrying" else facts


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
    waits: State = "delayed" if message.place == "delayed" else "queued"
    return "retrying" if message.attempt > 1 else waits


def _runs(message: FoundMessage, own: ClaimReading | None, claimed: str) -> bool:
    if own is None:
        return message.place == "running"
    return claimed == "running" and message.place in ("held", "running") and not own.lapsed


def _with_last_error(app: Application, facts: Facts, *, records: bool) -> Facts:
    """With the end of its last attempt, where SQL answers: its state is known without it."""
    try:
        last = _records(app, facts.id, sql=records).last
    except sql_errors():
        return facts
    return facts if last is None else _with_end(facts, last)


# One that has ended, or is not seen.


def _ended(app: Application, message_id: str, *, records: bool) -> Facts:
    found = _records(app, message_id, sql=records)
    if found.last is None and (sent := _in_broker(app, message_id, records=records)) is not None:
        return sent  # it was sent while the records were read, perhaps by the relay
    if found.last is not None:
        return _recorded(app, message_id, found.last, found.letter)
    if found.unsent is not None:
        return _unsent(found.unsent)
    if app.port.keeps_claims:
        why = "nothing is known of it: it was never sent, its sender has not committed yet, or its records are gone"
    else:
        why = "its broker shows no single messages: it waits or runs there, or was never sent, or its records are gone"
    return Facts(message_id, "unknown", waits_because=why)


def _records(app: Application, message_id: str, *, sql: bool) -> _Records:
    """What is recorded of a message. The journal is asked first: an event stays there until it is in SQL."""
    from conventions.records import executions  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import
    from conventions.storage.tables import DeadLetterRow, OutboxRow  # noqa: PLC0415  # the same

    rows = [executions.row_of(entry) for entry in app.journal.find(message_id)]
    if not sql or not app.database.is_there:
        return _Records(_last(rows))
    with app.database.session(read_only=True) as session:
        rows += executions.of_message(session, message_id)
        last = _last(rows)
        if last is None:
            unsent = session.get(OutboxRow, message_id)
            is_ours = unsent is not None and unsent.application == app.settings.key_prefix
            session.expunge_all()  # they outlive the session
            return _Records(None, unsent=unsent if is_ours else None)
        letter = session.get(DeadLetterRow, message_id) if last.kind == "dead" else None
        session.expunge_all()
        return _Records(last, letter)


def _last(rows: "Sequence[ExecutionRow]") -> "ExecutionRow | None":
    ends = [one for one in rows if one.kind != "superseded"]  # another copy is further on
    return max(ends, key=lambda one: (one.generation, one.attempt, one.fence, one.ended_at), default=None)


def _recorded(app: Application, message_id: str, last: "ExecutionRow", letter: "DeadLetterRow | None") -> Facts:
    """From its last execution, which is an end, or an attempt that another one should follow."""
    claim = _claim(app, last.task, last.key)
    state, why = BY_KIND.get(last.kind), ""
    if letter is not None and letter.state == "discarded":
        state = "discarded"
    elif state is None and app.port.keeps_claims:
        state, why = "unknown", "its message is gone from the broker: if it is lost, that is recorded within minutes"
    elif state is None:
        runs = claim is not None and claim.state == "running" and claim.message_id == message_id and not claim.lapsed
        state, why = ("running", "") if runs else ("retrying", "its broker does not show when its next attempt is due")
    facts = Facts(
        message_id,
        state,
        task=last.task,
        queue=last.queue,
        actor=last.actor,
        key=last.key,
        attempts=last.attempt,
        redrives=last.generation,
        enqueued_at=last.enqueued_at,
        waits_because=why,
    )
    facts = _with_end(facts, last)
    is_own = claim is not None and (claim.message_id == message_id or state == "duplicate")
    if claim is not None and is_own and claim.has_result and state in ("succeeded", "duplicate"):
        facts = replace(facts, has_result=True, result=claim.result)
    return facts


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
    why = "it waits in the outbox: a worker sends it"
    if row.fault:
        why = f"it waits in the outbox, since its last send failed: {row.fault}"
    return Facts(row.id, "unsent", task=row.task, enqueued_at=row.written_at, waits_because=why)


# Parts.


def sql_errors() -> tuple[type[Exception], ...]:
    """The errors of SQL. Whoever has never imported it cannot have had one; to import it takes 0.6 s."""
    module = sys.modules.get("sqlalchemy.exc")
    return () if module is None else (module.SQLAlchemyError,)


def _claim(app: Application, task: str | None, key: str | None) -> ClaimReading | None:
    return read_claim(app.claims.store, f"{task}:{key}") if task and key else None


def _has_workers(app: Application) -> bool:
    return any(name.startswith("worker ") for name in living(app.store))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _seconds(value: float) -> datetime:
    return datetime.fromtimestamp(value, UTC)
