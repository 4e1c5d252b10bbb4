"""Executions: how every attempt at every message ended. The recorder copies them from the journal to SQL."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from conventions.core.chunking import batched
from conventions.core.error_text import clean, cut
from conventions.core.time_units import moment
from conventions.proof import waiting_rows
from conventions.proof.chain import Chain
from conventions.proof.proven_tables import EXECUTIONS
from conventions.records.journal import ASIDE, JournalEntry
from conventions.storage.database import begins, insert_into
from conventions.storage.tables import ExecutionRow

LOOKED_UP = 1000  # ids in one query
COUNTED = {
    "preserve_rowcount": True
}  # otherwise the driver of PostgreSQL does not say how many of many rows were stored


class RepeatedRows(Exception):
    """Some of these events are in SQL already, so that their numbers would be gaps: give the transaction up, and look first."""


def record(
    session: Session, entries: Sequence[JournalEntry], chain: Chain | None = None, *, look: bool = False
) -> set[str]:
    """Store events, each once.

    Args:
        session: a transaction.
        entries: the events, as the journal has them.
        chain: of the executions; without it the rows wait for their place in it.
        look: whether to look first which are there: with a chain a row that is there already must not get a number.

    Returns:
        The ids of events that were not stored before, without plain successes: nobody needs those, and asking for them costs as much as
        storing them.

    Raises:
        RepeatedRows: some are there, and `look` is false.
    """
    events = {entry.event.id: entry for entry in reversed(entries)}  # if an entry was read twice, the first one counts
    if look:
        if chain is not None:
            chain.lock()
        for id_ in _there(session, list(events)):
            del events[id_]
    plain: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for id_ in sorted(events):  # sorted, so that two recorders of the same rows cannot deadlock
        entry = events[id_]
        if _is_plain(entry):
            plain.append(_row(id_, entry))
        else:
            others.append(_row(id_, entry) | _failure(entry))
    if chain is not None:
        chain.number([*plain, *others])
    else:
        waiting_rows.sign_all(session, EXECUTIONS, [*plain, *others])
    insert = insert_into(session, ExecutionRow).on_conflict_do_nothing(index_elements=["id"])
    stored = session.connection().execute(insert, plain, execution_options=COUNTED).rowcount if plain else 0
    new = set(session.scalars(insert.returning(ExecutionRow.id), others)) if others else set()
    if chain is not None and (stored != len(plain) or len(new) != len(others)):
        raise RepeatedRows
    return new


def _there(session: Session, ids: Sequence[str]) -> list[str]:
    """Which of these are in SQL."""
    return [
        id_
        for some in batched(ids, LOOKED_UP)
        for id_ in session.scalars(select(ExecutionRow.id).where(ExecutionRow.id.in_(some)))
    ]


def _is_plain(entry: JournalEntry) -> bool:
    """Whether it is a success of a message that was never a dead letter."""
    event = entry.event
    return event.kind == "succeeded" and event.generation == 0 and event.failure is None


def latest(session: Session, limit: int, kind: str | None = None) -> Sequence[ExecutionRow]:
    """The executions that ended last, or those of one kind; the latest first. `AuditFilter` has what people look for."""
    row = ExecutionRow
    query = select(row) if kind is None else select(row).where(row.kind == kind)
    return session.scalars(query.order_by(row.ended_at.desc(), row.id).limit(limit)).all()


def of_message(session: Session, message_id: str) -> Sequence[ExecutionRow]:
    """Every execution of one message, in order: by generation, by attempt, by fence."""
    row = ExecutionRow
    query = select(row).where(row.message_id == cut(message_id))
    return session.scalars(query.order_by(row.generation, row.attempt, row.fence, row.ended_at, row.id)).all()


def ids_that_begin(session: Session, text: str, most: int) -> Sequence[str]:
    """The ids of messages with executions that begin so. It reads the index of all ids."""
    column = ExecutionRow.message_id
    return session.scalars(select(column).distinct().where(begins(column, text)).limit(most)).all()


def last_of_each(session: Session, message_ids: Sequence[str]) -> dict[str, ExecutionRow]:
    """The last execution of each message. One that does not say how the message stands counts only if the message has no other."""
    row = ExecutionRow
    query = select(row).where(row.message_id.in_([cut(one) for one in message_ids]))
    found: dict[str, ExecutionRow] = {}
    for one in session.scalars(query.order_by(row.generation, row.attempt, row.fence, row.ended_at, row.id)):
        if one.kind not in ASIDE or one.message_id not in found:
            found[one.message_id] = one
    return found


def row_of(entry: JournalEntry) -> ExecutionRow:
    """The row that an event becomes, of no session."""
    return ExecutionRow(**_row(entry.event.id, entry), **_failure(entry))


def has_succeeded(session: Session, task: str | None, message_id: str, key: str | None, since: datetime) -> bool:
    """Whether this message has ever succeeded, or another message with its key since the given time."""
    row = ExecutionRow
    succeeded = row.kind == "succeeded"
    queries = [select(row.id).where(row.message_id == message_id, succeeded)]
    if key:
        queries.append(select(row.id).where(row.key == key, row.task == task, succeeded, row.ended_at >= since))
    return any(session.scalar(query.limit(1)) is not None for query in queries)


def _row(id_: str, entry: JournalEntry) -> dict[str, Any]:
    event = entry.event
    return {
        "id": id_,
        "message_id": cut(event.message_id),
        "task": None if event.task is None else cut(event.task),
        "queue": None if event.queue is None else cut(event.queue),
        "key": None if event.key is None else cut(event.key),
        "worker": None if event.worker is None else cut(event.worker),
        "generation": event.generation,
        "attempt": event.attempt,
        "kind": clean(event.kind),
        "actor": cut(event.actor),
        "enqueued_at": moment(event.enqueued_at),
        "started_at": moment(event.started_at),
        "ended_at": entry.at,
        "runtime": _finite(event.runtime),
        "wait": _finite(event.wait),
        "release": None if event.release is None else cut(event.release),
        "fence": entry.fence,
    }


def _failure(entry: JournalEntry) -> dict[str, str | None]:
    """The rest of a row, which a plain success does not have: each column costs time."""
    failure = entry.event.failure
    return {
        "fingerprint": cut(failure.fingerprint) if failure and failure.fingerprint else None,
        "error": cut(failure.error) if failure else None,
        "error_message": clean(failure.error_message) if failure else None,
        "traceback": clean(failure.traceback) if failure else None,
    }


def _finite(seconds: float | None) -> float | None:
    return seconds if seconds is not None and math.isfinite(seconds) else None
