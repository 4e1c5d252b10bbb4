"""Jobs of which SQL knows no end, for `missing.py`: those that were to be tried again, and letters that were sent again."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy import and_, func, or_, select, text, tuple_
from sqlalchemy.orm import Session, aliased

from conventions.database import Database
from conventions.dead_letters import TAKEN
from conventions.failures import FailureText, cut
from conventions.journal import Event
from conventions.tables import UNENDED, DeadLetterRow, ExecutionRow

PAGE = 500
ENDS = ("succeeded", "duplicate", "dead", "cancelled", "revoked", "expired", "purged")
GOES_ON = ("retried", "hung")  # after which a message is there
LOST = FailureText("Lost", "its message is gone from Redis", "", "")


def unended(database: Database, before: datetime) -> Iterator[list[Event]]:
    """The events that would end them, in parts.

    Args:
        database: the records.
        before: when the last was recorded of a job that was to be tried again: later ones are left for the next time.
    """
    with database.session(read_only=True) as session:
        yield from _tried(session, before)
        yield from _redriven(session)


def _tried(session: Session, before: datetime) -> Iterator[list[Event]]:
    row, other = ExecutionRow, aliased(ExecutionRow)
    later = or_(
        other.generation > row.generation,
        and_(other.generation == row.generation, other.attempt > row.attempt),
        and_(other.generation == row.generation, other.attempt == row.attempt, other.kind.not_in(GOES_ON)),
        # What `self.replace` has put in its place begins with its first attempt.
        and_(other.generation == row.generation, other.ended_at > row.ended_at, other.kind.not_in(GOES_ON)),
    )
    latest = ~select(other.id).where(other.message_id == row.message_id, other.kind != "superseded", later).exists()
    query = select(row).where(text(UNENDED), row.kind.in_(GOES_ON), row.ended_at < before, latest)
    position: tuple[datetime, str] | None = None
    while True:
        page = query if position is None else query.where(tuple_(row.ended_at, row.id) > position)
        found = session.scalars(page.order_by(row.ended_at, row.id).limit(PAGE)).all()
        if found:
            yield [_after(one) for one in found]
        if len(found) < PAGE:
            return
        position = (found[-1].ended_at, found[-1].id)
        session.expunge_all()


def _after(row: ExecutionRow) -> Event:
    return Event(
        row.message_id,
        "lost",
        task=row.task,
        queue=row.queue,
        actor=row.actor,
        key=row.key,
        generation=row.generation,
        attempt=row.attempt + 1,
        enqueued_at=row.enqueued_at,
        failure=LOST,
    )


def _redriven(session: Session) -> Iterator[list[Event]]:
    row = DeadLetterRow
    columns = (row.id, row.task, row.queue, row.actor, row.generation)
    is_sent = or_(row.answer.is_(None), row.answer != TAKEN)  # a redrive sends it later
    last = ""
    while True:
        found = session.execute(
            select(*columns).where(row.state == "redriving", is_sent, row.id > last).order_by(row.id).limit(PAGE)
        ).all()
        if found:
            yield [
                Event(id_, "lost", task=task, queue=queue, actor=actor, generation=generation + 1, failure=LOST)
                for id_, task, queue, actor, generation in found
            ]
        if len(found) < PAGE:
            return
        last = found[-1].id


def endings(session: Session, message_ids: Sequence[str]) -> dict[str, list[tuple[int, str, datetime]]]:
    """How messages have ended, by their ids: generation, kind and when."""
    row, found = ExecutionRow, dict[str, list[tuple[int, str, datetime]]]()
    query = select(row.message_id, row.generation, row.kind, row.ended_at).where(
        row.message_id.in_([cut(one) for one in message_ids]), row.kind.in_(ENDS)
    )
    for message_id, generation, kind, ended_at in session.execute(query):
        found.setdefault(message_id, []).append((generation, kind, ended_at))
    return found


def count_lost(session: Session, since: datetime) -> int:
    """How many jobs were lost since then."""
    row = ExecutionRow
    query = select(func.count()).select_from(row).where(text(UNENDED), row.kind == "lost", row.ended_at >= since)
    return session.scalar(query) or 0
