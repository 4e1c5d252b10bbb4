"""Dead letters: kept in SQL until a person or rule redrives or discards them (R17, R18)."""

import hashlib
import math
import sysconfig
import traceback as tracebacks
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from conventions.database import DeadLetterRow, utc_now

NAME_LENGTH = 255  # of the columns
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
    row.task, row.queue, row.actor = _cut(failure.task), _cut(failure.queue), _text(failure.actor)[:NAME_LENGTH]
    row.error, row.error_message = type(failure.error).__name__[:NAME_LENGTH], _message(failure.error)
    row.traceback = _text("".join(tracebacks.format_exception(failure.error)))
    row.fingerprint = fingerprint(failure.task, failure.error)
    row.attempts, row.state, row.last_failed_at = failure.attempts, "dead", now
    row.arguments, row.headers = _finite(dict(failure.arguments)), _finite(dict(failure.headers))
    row.history = _finite(list(failure.history))
    session.add(row)


def _text(value: str) -> str:
    """What every database stores: no NUL, no half characters."""
    return value.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def _cut(name: str | None) -> str | None:
    return None if name is None else _text(name)[:NAME_LENGTH]


def _message(error: BaseException) -> str:
    try:
        return _text(str(error))
    except Exception as fault:  # noqa: BLE001  # an error that cannot say what it is must be kept all the same
        return f"<its text cannot be had: {type(fault).__name__}>"


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
    ours = [frame for frame in frames if not _of_a_library(frame.f_code.co_filename)]
    for frame in reversed(ours or frames):
        return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"
    return ""


def _of_a_library(file: str) -> bool:
    library = ("site-packages" in file) or ("dist-packages" in file) or file.startswith("<frozen ")
    return library or file.startswith(sysconfig.get_path("stdlib"))
