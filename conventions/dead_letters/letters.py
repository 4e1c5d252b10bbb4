"""Dead letters in SQL: find them, read them, and change their state (R17, R18)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session, defer

from conventions.dead_letters.filter import Counted, Filter
from conventions.dead_letters.redrive_selection import selected
from conventions.dead_letters.resent_letters import FAILED, SUPERSEDED
from conventions.records import executions
from conventions.storage.database import begins, utc_now
from conventions.storage.tables import DeadLetterRow

Position: TypeAlias = tuple[datetime, str]  # the time of the last failure, and the id

LARGE = (DeadLetterRow.message, DeadLetterRow.arguments, DeadLetterRow.headers, DeadLetterRow.traceback)
PAGE = 500  # letters in memory at the same time
STATES = ("dead", "redriving", "redriven", "discarded")
UNTOLD = (SUPERSEDED,)
HISTORY_FIELDS = (
    "generation",
    "attempt",
    "kind",
    "error",
    "error_message",
    "traceback",
    "ended_at",
    "worker",
    "release",
    "runtime",
)


def listing(
    session: Session, which: Filter, limit: int, after: Position | None = None, *, brief: bool = False
) -> Sequence[DeadLetterRow]:
    """The matching letters, newest failure first.

    Args:
        which: the filter.
        limit: the largest number of letters.
        after: `position` of the last letter on the previous page; `None`: start at the first.
        brief: leave out the large columns: message, arguments, headers and traceback.
    """
    row = DeadLetterRow
    query = select(row).where(*selected(session, which)).order_by(row.last_failed_at.desc(), row.id.desc())
    if after is not None:
        query = query.where(tuple_(row.last_failed_at, row.id) < after)
    if brief:
        query = query.options(*(defer(column, raiseload=True) for column in LARGE))
    return session.scalars(query.limit(limit)).all()


def ids_that_begin(session: Session, text: str, most: int) -> Sequence[str]:
    """The ids of letters that begin so."""
    return session.scalars(select(DeadLetterRow.id).where(begins(DeadLetterRow.id, text)).limit(most)).all()


def position(letter: DeadLetterRow) -> Position:
    """The place of a letter in a listing."""
    return letter.last_failed_at, letter.id


def every(session: Session, which: Filter) -> Iterator[DeadLetterRow]:
    """All matching letters, one page at a time, so memory does not grow with their number."""
    after: Position | None = None
    while page := listing(session, which, PAGE, after):
        yield from page
        after = position(page[-1])
        session.expunge_all()


def count(session: Session, which: Filter) -> int:
    """How many letters match."""
    query = select(func.count()).select_from(DeadLetterRow).where(*selected(session, which))
    return session.scalar(query) or 0


def seen(session: Session, which: Filter) -> tuple[int, Filter]:
    """How many letters match now, and the filter of just these: it matches none that dies or becomes old enough later.

    Its bound is the newest failure that was counted. So it is by the one clock that stamps failures, the server's of
    the journal, and a letter that was on its way into SQL during the count is newer. Letters of that very millisecond
    alone may still come.
    """
    row, now = DeadLetterRow, utc_now()
    query = select(func.count(), func.max(row.last_failed_at)).where(
        *selected(session, which, now)
    )  # one look for both
    number, newest = session.execute(query).one()
    return number, replace(which, counted=Counted(now, newest))


def newer(session: Session, which: Filter) -> int:
    """How many letters match by now that are newer than those that were seen."""
    if which.counted.newest is None:
        return 0
    later = DeadLetterRow.last_failed_at > which.counted.newest
    query = select(func.count()).select_from(DeadLetterRow).where(*selected(session, which.open), later)
    return session.scalar(query) or 0


def missing(session: Session, which: Filter) -> list[str]:
    """The ids of a selection without a letter in the selected state."""
    found = session.scalars(select(DeadLetterRow.id).where(*selected(session, which))).all() if which.ids else ()
    return sorted(set(which.ids) - set(found))


def kinds(session: Session, which: Filter) -> list[tuple[str | None, str | None]]:
    """Every pair of task and queue among the matching letters."""
    query = select(DeadLetterRow.task, DeadLetterRow.queue).where(*selected(session, which)).distinct()
    return [(task, queue) for task, queue in session.execute(query)]


def get(session: Session, id: str) -> DeadLetterRow | None:  # noqa: A002  # the word of the glossary
    """One letter by its message id."""
    return session.get(DeadLetterRow, id)


def message(letter: DeadLetterRow) -> Any:
    """The letter's message as it was in the broker (body, headers, properties). `None` if it is unknown."""
    return None if letter.message is None else json.loads(letter.message)


def history(session: Session, id: str) -> list[dict[str, Any]]:  # noqa: A002
    """The attempts at a message in order, through all redrives to its end, as far as executions are kept."""
    rows = [row for row in executions.of_message(session, id) if row.kind not in UNTOLD]
    return [{name: getattr(row, name) for name in HISTORY_FIELDS} for row in rows]


def failed_by(history: Sequence[Mapping[str, Any]]) -> str | None:
    """The release of the last failed attempt of a history. `None`: it is unknown, or no execution is kept."""
    failed = [one["release"] for one in history if one["kind"] in FAILED]
    return failed[-1] if failed else None


def move(session: Session, id: str, before: Sequence[str], after: str) -> bool:  # noqa: A002
    """Change the state of a letter if it is in one of `before`. False if somebody else changed it first."""
    row = session.get(DeadLetterRow, id, with_for_update=True)
    if row is None or row.state not in before:
        return False
    row.state = after
    return True
