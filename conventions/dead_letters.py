"""Dead letters: kept in SQL until a person or rule redrives or discards them (R17, R18)."""

import json
import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, select, tuple_, update
from sqlalchemy.orm import Session

from conventions import executions
from conventions.database import insert_into
from conventions.failures import FailureText, clean, cut
from conventions.journal import Entry
from conventions.tables import DeadLetterRow

STATES = ("dead", "redriving", "redriven", "discarded")
HISTORY_KINDS = ("retried", "dead")
HISTORY_FIELDS = ("attempt", "kind", "error", "error_message", "traceback", "ended_at", "worker", "runtime")

_NO_FAILURE = FailureText("Unknown", "", "", "")


@dataclass(frozen=True, slots=True)
class Group:
    """Dead letters with one cause."""

    fingerprint: str
    task: str | None
    error: str
    count: int
    first_seen: datetime
    last_seen: datetime
    example: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters; every field that is given must match."""

    state: str | None = "dead"
    task: str | None = None
    queue: str | None = None
    error: str | None = None
    group: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as SQL conditions."""
        pairs = (
            (DeadLetterRow.state, self.state),
            (DeadLetterRow.task, self.task),
            (DeadLetterRow.queue, self.queue),
            (DeadLetterRow.error, self.error),
            (DeadLetterRow.fingerprint, self.group),
        )
        return [column == value for column, value in pairs if value is not None]


def record(session: Session, entries: Sequence[Entry]) -> None:
    """Store the letters of events that were not recorded before; a letter that dies again is the same letter.

    An event of an earlier redrive, attempt or claim than the stored one changes nothing but the first time.
    """
    if not entries:
        return
    insert = insert_into(session, DeadLetterRow)
    new, row = insert.excluded, DeadLetterRow
    later = tuple_(new.generation, new.attempts, new.fence, new.last_failed_at) >= tuple_(
        row.generation, row.attempts, row.fence, row.last_failed_at
    )
    # In order, so that two recorders that change the same letters do not wait for each other in a circle.
    values = sorted((_values(entry) for entry in entries), key=lambda one: str(one["id"]))
    changes = {name: new[name] for name in values[0] if name not in ("id", "first_failed_at")}
    connection = session.connection()  # past the ORM, which would send the rows as one statement: a row may come twice
    connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=changes, where=later), values)
    earlier = update(row).where(row.id == bindparam("letter"), row.first_failed_at > bindparam("first"))
    times = [{"letter": one["id"], "first": one["first_failed_at"]} for one in values]
    connection.execute(earlier.values(first_failed_at=bindparam("first")), times)


def _values(entry: Entry) -> dict[str, Any]:
    event, failure = entry.event, entry.event.failure or _NO_FAILURE
    return {
        "id": cut(event.message_id),
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
        "first_failed_at": entry.at,
        "last_failed_at": entry.at,
    }


def _envelope(entry: Entry) -> str | None:
    """The message as JSON text; bytes that are no JSON are kept as `{"base64": …}`."""
    if entry.message is None:
        return None if entry.event.message is None else json.dumps(entry.event.message)
    try:
        text = entry.message.decode()
        json.loads(text)
    except (ValueError, RecursionError):
        return json.dumps({"base64": b64encode(entry.message).decode()})
    return text


def _finite(value: Any) -> Any:
    """JSON that every database stores: Python reads NaN and Infinity, PostgreSQL does not."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {name: _finite(one) for name, one in value.items()}
        case list():
            return [_finite(one) for one in value]
        case _:
            return value


def listing(session: Session, which: Filter, limit: int) -> Sequence[DeadLetterRow]:
    """The letters that match, the newest failure first."""
    query = select(DeadLetterRow).where(*which.conditions()).order_by(DeadLetterRow.last_failed_at.desc())
    return session.scalars(query.limit(limit)).all()


def groups(session: Session, which: Filter, limit: int) -> list[Group]:
    """The letters that match, grouped by cause, the largest group first."""
    row = DeadLetterRow
    query = (
        select(
            row.fingerprint,
            func.min(row.task),
            func.min(row.error),
            func.count(),
            func.min(row.first_failed_at),
            func.max(row.last_failed_at),
            func.min(row.id),
        )
        .where(*which.conditions())
        .group_by(row.fingerprint)
        .order_by(func.count().desc())
        .limit(limit)
    )
    return [Group(*values) for values in session.execute(query)]


def get(session: Session, id: str) -> DeadLetterRow | None:  # noqa: A002  # the word of the glossary
    """One letter by its message id."""
    return session.get(DeadLetterRow, id)


def message(letter: DeadLetterRow) -> Any:
    """The letter's message as the broker had it (body, headers, properties), or `None` where it is not known."""
    return None if letter.message is None else json.loads(letter.message)


def history(session: Session, id: str) -> list[dict[str, Any]]:  # noqa: A002
    """The failed attempts of a message in their order, as long as executions are kept."""
    rows = [row for row in executions.of_message(session, id) if row.kind in HISTORY_KINDS]
    return [{name: getattr(row, name) for name in HISTORY_FIELDS} for row in rows]


def move(session: Session, id: str, before: Sequence[str], after: str) -> bool:  # noqa: A002
    """Change the state of one letter if it is in one of `before`; false when another got there first."""
    row = session.get(DeadLetterRow, id, with_for_update=True)
    if row is None or row.state not in before:
        return False
    row.state = after
    return True
