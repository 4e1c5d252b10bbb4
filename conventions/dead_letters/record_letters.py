"""A dead letter becomes a row in SQL, from what the journal says of its death (R17)."""

import json
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, select, tuple_, update
from sqlalchemy.orm import Session

from conventions.core.error_text import FailureText, clean, cut
from conventions.dead_letters.resent_letters import FAILED
from conventions.records.journal import JournalEntry
from conventions.storage.database import insert_into
from conventions.storage.tables import DeadLetterRow, ExecutionRow

_NO_FAILURE = FailureText("Unknown", "", "", "")


def record(session: Session, entries: Sequence[JournalEntry]) -> None:
    """Store the letters of newly recorded events. A message that dies again updates its letter.

    An event of an earlier redrive, attempt or claim than the stored one does not change the letter. Only the time of
    the first failure may move back: it is the first failed attempt among the executions that are kept.
    """
    if not entries:
        return
    first = _first_failures(session, entries)
    insert = insert_into(session, DeadLetterRow)
    new, row = insert.excluded, DeadLetterRow
    later = tuple_(new.generation, new.attempts, new.fence, new.last_failed_at) >= tuple_(
        row.generation, row.attempts, row.fence, row.last_failed_at
    )
    # Sorted, so that two recorders of the same letters cannot deadlock.
    values = sorted((_values(entry, first) for entry in entries), key=lambda one: str(one["id"]))
    changes = {name: new[name] for name in values[0] if name not in ("id", "first_failed_at")}
    connection = session.connection()  # without the ORM, which would send one statement; a row may occur twice
    connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=changes, where=later), values)
    earlier = update(row).where(row.id == bindparam("letter"), row.first_failed_at > bindparam("first"))
    times = [{"letter": one["id"], "first": one["first_failed_at"]} for one in values]
    connection.execute(earlier.values(first_failed_at=bindparam("first")), times)


def antedate(session: Session, entries: Sequence[JournalEntry]) -> None:
    """Use failures that were read after their message died: the letter's first failure may be earlier."""
    retried = [entry for entry in entries if entry.event.kind == "retried"]
    first = _first_failures(session, retried)
    if not first:
        return
    row = DeadLetterRow
    letters = session.execute(select(row.id, row.first_failed_at).where(row.id.in_(first))).all()
    for id_ in sorted(id_ for id_, at in letters if first[id_] < at):
        session.connection().execute(update(row).where(row.id == id_).values(first_failed_at=first[id_]))


def _first_failures(session: Session, entries: Sequence[JournalEntry]) -> dict[str, datetime]:
    ids = {cut(entry.event.message_id) for entry in entries}
    if not ids:
        return {}
    row = ExecutionRow
    query = select(row.message_id, func.min(row.ended_at)).where(row.message_id.in_(ids), row.kind.in_(FAILED))
    return dict(session.execute(query.group_by(row.message_id)).all())


def _values(entry: JournalEntry, first: Mapping[str, datetime]) -> dict[str, Any]:
    event, failure = entry.event, entry.event.failure or _NO_FAILURE
    id_ = cut(event.message_id)
    return {
        "id": id_,
        "task": None if event.task is None else cut(event.task),
        "queue": None if event.queue is None else cut(event.queue),
        "error": cut(failure.error),
        "error_message": clean(failure.error_message),
        "traceback": clean(failure.traceback),
        "fingerprint": clean(failure.fingerprint)[:64],
        "attempts": event.attempt,
        "actor": cut(event.actor),
        "state": "dead",
        "arguments": _finite(event.arguments or {}),
        "headers": _finite(event.headers or {}),
        "message": _envelope(entry),
        "generation": event.generation,
        "fence": entry.fence,
        "first_failed_at": min(first.get(id_, entry.at), entry.at),
        "last_failed_at": entry.at,
        "answer": "dead",
        "answered_at": None,  # for a resent letter `note_answers` sets the time of its first failure
    }


def _envelope(entry: JournalEntry) -> str | None:
    """The message as JSON text. Bytes that are not JSON are kept as `{"base64": …}`."""
    if entry.message is None:
        return None if entry.event.message is None else json.dumps(entry.event.message)
    try:
        text = entry.message.decode()
        json.loads(text)
    except (ValueError, RecursionError):
        return json.dumps({"base64": b64encode(entry.message).decode()})
    return text


def _finite(value: Any) -> Any:
    """JSON that every database can store: Python reads NaN and Infinity, PostgreSQL does not."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {name: _finite(one) for name, one in value.items()}
        case list():
            return [_finite(one) for one in value]
        case _:
            return value
