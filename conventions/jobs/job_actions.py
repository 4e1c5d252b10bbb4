"""What people did to a job, in its order: what the audit has under its id, and the redrives that sent it again (R22)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from conventions.core.error_text import cut
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_rows import LEFT
from conventions.dead_letters.resent_letters import TAKEN
from conventions.jobs.message_parts import of_letter
from conventions.records import audit, executions
from conventions.storage.tables import AuditRow, DeadLetterRow, ExecutionRow, RedriveRow

MOST = 50  # actions under its id, and redrives of one moment that are looked at
CLOCKS = timedelta(seconds=2)  # by which those of Redis and of a person's machine may differ here
REDRIVE, RETRY = "dead-letters redrive", "batch retry-failed"


@dataclass(frozen=True, slots=True)
class JobAction:
    """What a person did to a job.

    Attributes:
        at: when.
        action: what, as the audit has it.
        reason: why; `None`: nobody has said it.
        before, after: the changed values.
        redrive: of a redrive its id, also where it sent many letters.
    """

    at: datetime
    actor: str
    action: str
    reason: str | None
    before: Any = None
    after: Any = None
    redrive: str | None = None


def actions_of(session: Session, message_id: str) -> list[JobAction]:
    """What people did to a job, as far as it is recorded, the first one first."""
    found = [_of_audit(row) for row in audit.listing(session, MOST, target=message_id)]
    return sorted([*found, *_sent_again(session, message_id)], key=lambda one: one.at)


def _of_audit(row: AuditRow) -> JobAction:
    return JobAction(row.at, row.actor, row.action, row.reason, row.before, row.after)


def _sent_again(session: Session, message_id: str) -> Iterator[JobAction]:
    """Who has sent it again as a dead letter: alone, among others, or with the other failed chunks of its batch. Of two that may have, neither."""
    letter = session.get(DeadLetterRow, cut(message_id))
    rows = executions.of_message(session, message_id)
    batch = None if letter is None else of_letter(letter).batch
    retries = audit.listing(session, MOST, target=batch, only=(RETRY,)) if batch else ()
    redrives = {} if letter is None else _last_one(session, letter)
    with_batch: dict[Any, AuditRow] = {}
    for at in sorted({row.enqueued_at for row in rows if row.generation and row.enqueued_at is not None}, reverse=True):
        died = max((one for one in rows if one.kind == "dead" and one.ended_at <= at), key=_ended_at, default=None)
        these = _that_may_have(session, message_id, at, died)
        retry = next(
            (row for row in retries if row.at <= at and (died is None or row.at >= died.ended_at - CLOCKS)), None
        )
        if any(one.id in redrives for one in these) or len(these) + (retry is not None) != 1:
            continue
        redrives |= {one.id: one for one in these}
        with_batch |= {} if retry is None else {retry.id: retry}
    if letter is not None and letter.state == "redriving" and letter.redrive_id is None:  # it waits or runs since
        with_batch |= {row.id: row for row in retries[:1]}
    for one in redrives.values():
        yield JobAction(one.created_at, one.actor, REDRIVE, one.reason, redrive=one.id)
    yield from map(_of_audit, with_batch.values())


def _last_one(session: Session, letter: DeadLetterRow) -> dict[str, RedriveRow]:
    """The redrive that sent it last, by its id, if one did. One that has taken or left a letter has not sent it."""
    if letter.redrive_id is None or letter.answer in (TAKEN, LEFT):
        return {}
    found = session.get(RedriveRow, letter.redrive_id)
    return {} if found is None else {found.id: found}


def _that_may_have(session: Session, message_id: str, at: datetime, died: ExecutionRow | None) -> Sequence[RedriveRow]:
    """The redrives that may have sent a letter at this moment: they were under way, and chose such letters."""
    row = RedriveRow
    query = select(row).where(row.created_at <= at, or_(row.ended_at.is_(None), row.ended_at >= at))
    found = session.scalars(query.order_by(row.created_at.desc()).limit(MOST))
    return [one for one in found if _chose(one, message_id, died)]


def _ended_at(row: ExecutionRow) -> datetime:
    return row.ended_at


def _chose(redrive: RedriveRow, message_id: str, died: ExecutionRow | None) -> bool:
    """Whether a redrive chose a letter that died so, as far as its death says: the arguments may have changed since."""
    which = Filter.of(redrive.selection)
    if which.ids and cut(message_id) not in which.ids:
        return False
    if died is None:  # that is not kept any more
        return True
    pairs = ((which.queue, died.queue), (which.error, died.error), (which.group, died.fingerprint))
    if any(wanted is not None and wanted != is_so for wanted, is_so in pairs):
        return False
    is_task = which.task is None or f".{died.task}".endswith(f".{which.task}")
    return is_task and died.ended_at <= (which.counted.newest or redrive.created_at)
