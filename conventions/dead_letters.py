"""Dead letters: kept in SQL until a person or rule redrives or discards them (R17, R18)."""

import hashlib
import traceback as tracebacks
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from conventions.database import DeadLetterRow, utc_now

STATES = ("dead", "redriving", "redriven", "discarded")


@dataclass(frozen=True, slots=True)
class Failure:
    """A job's last failure, as the pipeline saw it."""

    id: str
    task: str | None
    queue: str | None
    error: BaseException
    attempts: int
    actor: str
    arguments: Mapping[str, Any]
    headers: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]] = ()


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


def record(session: Session, failure: Failure) -> None:
    """Store a dead letter; a letter that dies again is the same letter."""
    now = utc_now()
    row = session.get(DeadLetterRow, failure.id) or DeadLetterRow(id=failure.id, first_failed_at=now)
    row.task, row.queue, row.actor = failure.task, failure.queue, failure.actor
    row.error, row.error_message = type(failure.error).__name__, str(failure.error)
    row.traceback = "".join(tracebacks.format_exception(failure.error))
    row.fingerprint = fingerprint(failure.task, failure.error)
    row.attempts, row.state, row.last_failed_at = failure.attempts, "dead", now
    row.arguments, row.headers, row.history = dict(failure.arguments), dict(failure.headers), list(failure.history)
    session.add(row)


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


def move(session: Session, id: str, before: Sequence[str], after: str) -> bool:  # noqa: A002
    """Change the state of one letter if it is in one of `before`; false when another got there first."""
    row = session.get(DeadLetterRow, id, with_for_update=True)
    if row is None or row.state not in before:
        return False
    row.state = after
    return True


def fingerprint(task: str | None, error: BaseException) -> str:
    """What failures of one cause share: task, exception type, and the innermost frame of code that is not a library."""
    return hashlib.sha256(f"{task}|{type(error).__qualname__}|{_place(error.__traceback__)}".encode()).hexdigest()[:16]


def _place(trace: TracebackType | None) -> str:
    frames = [frame for frame, _ in tracebacks.walk_tb(trace)]
    ours = [frame for frame in frames if "site-packages" not in frame.f_code.co_filename]
    for frame in reversed(ours or frames):
        return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"
    return ""
