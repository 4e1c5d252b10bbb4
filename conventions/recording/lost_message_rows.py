"""SQL queries for `recording/lost_message_search.py`: jobs, letters and batches that have begun and have no end in SQL."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy import and_, func, or_, select, text, tuple_
from sqlalchemy.orm import Session, aliased

from conventions.broker.batch_membership import finish_id
from conventions.core.error_text import FailureText, cut
from conventions.dead_letters.resent_letters import TAKEN
from conventions.records.audit_entry import BATCH_CANCEL, CANCEL
from conventions.records.journal import ASIDE, Event
from conventions.storage.database import Database
from conventions.storage.tables import UNENDED, AuditRow, DeadLetterRow, ExecutionRow

PAGE = 500
ENDS = ("succeeded", "duplicate", "dead", "cancelled", "revoked", "expired", "purged")
GOES_ON = ("retried", "hung")  # after these kinds the message is still in the broker
LOST = FailureText("Lost", "its message is gone from Redis", "", "")
LOST_BATCH = FailureText("Lost", "the batch is gone from Redis: chunks that no row tells of did not run", "", "")


def unended(database: Database, before: datetime) -> Iterator[list[Event]]:
    """Messages without an end in SQL, each as the event that would record it as lost. In parts.

    Args:
        database: the SQL database.
        before: leave out jobs whose last attempt ended after this moment.
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
        # A message that `self.replace` sent under the same id begins with attempt 1.
        and_(other.generation == row.generation, other.ended_at > row.ended_at, other.kind.not_in(GOES_ON)),
    )
    latest = ~select(other.id).where(other.message_id == row.message_id, other.kind.not_in(ASIDE), later).exists()
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


def _after(row: ExecutionRow, failure: FailureText = LOST) -> Event:
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
        failure=failure,
    )


def _redriven(session: Session) -> Iterator[list[Event]]:
    row = DeadLetterRow
    columns = (row.id, row.task, row.queue, row.actor, row.generation)
    is_sent = or_(row.answer.is_(None), row.answer != TAKEN)  # `TAKEN`: a redrive run will send it
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


def cut_batches(database: Database, tasks: Sequence[str], since: datetime, before: datetime) -> Iterator[list[Event]]:
    """Batches of these tasks whose cutting ended between the two moments, each as the event that would record it as lost. In parts."""
    row = ExecutionRow
    cut_then = and_(row.task.in_(tasks), row.kind == "succeeded", row.ended_at > since, row.ended_at < before)
    position: tuple[datetime, str] | None = None
    while True:
        with database.session(read_only=True) as session:  # one session for each part: the caller asks Redis in between
            page = select(row).where(cut_then)
            page = page if position is None else page.where(tuple_(row.ended_at, row.id) > position)
            found = session.scalars(page.order_by(row.ended_at, row.id).limit(PAGE)).all()
            events = [_after(one, LOST_BATCH) for one in found]
            last = (found[-1].ended_at, found[-1].id) if found else None
        if events:
            yield events
        if len(events) < PAGE:
            return
        position = last


def batches_with_an_end(database: Database, batch_ids: Sequence[str]) -> set[str]:
    """Those of these batches that have an end in SQL: a finish, a cancel, or a row that says lost."""
    row, finishes = ExecutionRow, {finish_id(one): one for one in batch_ids}
    cut_last = aliased(ExecutionRow)
    with database.session(read_only=True) as session:
        finished = session.scalars(select(row.message_id).where(row.message_id.in_(finishes)))
        found = {finishes[one] for one in finished}
        cut_again = select(cut_last.id).where(
            cut_last.message_id == row.message_id, cut_last.kind == "succeeded", cut_last.ended_at > row.ended_at
        )
        lost = select(row.message_id).where(row.message_id.in_(batch_ids), row.kind == "lost", ~cut_again.exists())
        cancels = session.execute(
            select(AuditRow.target, AuditRow.after).where(
                AuditRow.target.in_(batch_ids), AuditRow.action.in_((CANCEL, BATCH_CANCEL))
            )
        )
        # A cancel that came too late has an audit row, too; its outcome is `failed`.
        cancelled = [id_ for id_, after in cancels if not isinstance(after, dict) or after.get("outcome") != "failed"]
        return found.union(session.scalars(lost), cancelled)


def endings(session: Session, message_ids: Sequence[str]) -> dict[str, list[tuple[int, str, datetime]]]:
    """How messages have ended: by id, a list of generation, kind and time."""
    row, found = ExecutionRow, dict[str, list[tuple[int, str, datetime]]]()
    query = select(row.message_id, row.generation, row.kind, row.ended_at).where(
        row.message_id.in_([cut(one) for one in message_ids]), row.kind.in_(ENDS)
    )
    for message_id, generation, kind, ended_at in session.execute(query):
        found.setdefault(message_id, []).append((generation, kind, ended_at))
    return found


def have_rows(session: Session, message_ids: Sequence[str]) -> set[str]:
    """Those of these messages that have any row in SQL."""
    row = ExecutionRow
    return set(session.scalars(select(row.message_id).where(row.message_id.in_([cut(one) for one in message_ids]))))


def count_lost(session: Session, since: datetime) -> int:
    """How many jobs were lost since this moment."""
    row = ExecutionRow
    query = select(func.count()).select_from(row).where(text(UNENDED), row.kind == "lost", row.ended_at >= since)
    return session.scalar(query) or 0
