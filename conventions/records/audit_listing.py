"""The audit as one listing, newest first: executions of jobs, and actions of people (R22).

Each page is read from where the last one ended, by an index, so the last page of a million rows costs as much as the first.
A row that somebody has written so that it cannot be read is left out, and counted: it hides no other.
"""

import heapq
import itertools
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, defer

from conventions.core.error_text import cut
from conventions.core.errors import BusinessError
from conventions.core.sealed_mark import for_people
from conventions.proof.unreadable_rows import is_unreadable, readable
from conventions.proof.waiting_rows import SEEN
from conventions.records.audit_filter import AuditFilter
from conventions.storage.database import Database
from conventions.storage.tables import AuditRow, ExecutionRow

R = TypeVar("R")
Kind: TypeAlias = Literal["execution", "action"]

logger = logging.getLogger(__name__)

KINDS: tuple[Kind, ...] = ("action", "execution")  # of one moment, an execution comes before an action
PAGE = 500  # rows in memory at the same time
MOST_LEFT_OUT = 500  # rows that cannot be read, in one listing
OUTCOMES = ("done", "failed", "sent")  # that an action may have in `after`
FIELDS = (
    "at", "of", "actor", "task", "queue", "id", "attempt", "generation", "worker", "release", "outcome", "started_at", "runtime",
    "error", "error_message", "action", "target", "reason", "before", "after",
)  # fmt: skip


class Position(NamedTuple):
    """The place of a row in the listing."""

    at: datetime
    of: Kind
    row_id: str


@dataclass(frozen=True, slots=True)
class AuditLine:
    """A row of the listing: an execution, or an action. Fields of the other kind are `None`.

    Attributes:
        row_id: of its row in SQL.
        at: when the attempt ended, or when the action was done.
        of: which of both it is.
        actor: who acted, or in whose name the job ran.
        id: of the message.
        attempt: from 1; 0: never started.
        generation: how often the message had been sent again as a dead letter.
        outcome: one of `KINDS` of the journal; of an action `done`, `failed` or `sent`, if it says so.
        runtime: seconds.
        error: the class of the error.
        target: of the action: an id, a group, a schedule, a batch.
        before: the changed values, before.
        after: the changed values, after.
    """

    row_id: str
    at: datetime
    of: Kind
    actor: str
    task: str | None = None
    queue: str | None = None
    id: str | None = None
    attempt: int | None = None
    generation: int | None = None
    worker: str | None = None
    release: str | None = None
    outcome: str | None = None
    started_at: datetime | None = None
    runtime: float | None = None
    error: str | None = None
    error_message: str | None = None
    action: str | None = None
    target: str | None = None
    reason: str | None = None
    before: Any = None
    after: Any = None

    @property
    def position(self) -> Position:
        """Its place in the listing."""
        return Position(self.at, self.of, self.row_id)

    def values(self, zone: tzinfo) -> dict[str, Any]:
        """Its fields, for JSON and CSV, with times as ISO 8601 in a zone."""
        found = {name: getattr(self, name) for name in FIELDS}
        for name in ("at", "started_at"):
            moment = found[name]
            found[name] = None if moment is None else moment.astimezone(zone).isoformat()
        return found


def listing(
    session: Session,
    which: AuditFilter,
    limit: int,
    after: Position | None = None,
    left_out: set[str] | None = None,
) -> list[AuditLine]:
    """The rows that match, newest first.

    Args:
        session: a session.
        which: the filter.
        limit: the largest number of rows.
        after: `position` of the last row on the previous page; `None`: start at the first.
        left_out: gets the ids of rows that cannot be read.

    Raises:
        BusinessError: more than `MOST_LEFT_OUT` rows cannot be read.
    """
    found: list[list[AuditLine]] = []
    left_out = set() if left_out is None else left_out
    if which.has_executions:
        found.append(_executions(session, which, limit, after, left_out))
    if which.has_actions:
        found.append(_actions(session, which, limit, after, left_out))
    merged = heapq.merge(*found, key=lambda line: (line.at, KINDS.index(line.of)), reverse=True)
    return list(itertools.islice(merged, limit))


def pages(
    database: Database, which: AuditFilter, limit: int | None = None, left_out: set[str] | None = None
) -> Iterator[list[AuditLine]]:
    """All matching rows, one page at a time, so memory does not grow with their number. Each page has its own transaction.

    Args:
        database: the database.
        which: the filter.
        limit: the largest number of rows; `None`: all.
        left_out: gets the ids of rows that cannot be read.

    Raises:
        BusinessError: see `listing`.
    """
    after: Position | None = None
    while limit is None or limit > 0:
        size = PAGE if limit is None else min(PAGE, limit)
        with database.session(read_only=True) as session:
            page = listing(session, which, size, after, left_out)
        yield page
        if len(page) < size:
            return
        after, limit = page[-1].position, None if limit is None else limit - size


def left_out_text(rows: Collection[str]) -> str:
    """Which rows a listing has left out, since nobody can read them."""
    if len(rows) == 1:
        return f"row {min(rows)} cannot be read, since somebody has written it so, and is left out"
    return (
        f"{len(rows):,} rows cannot be read, since somebody has written them so, and are left out, such as {min(rows)}"
    )


def left_out_values(rows: Collection[str]) -> Iterator[dict[str, Any]]:
    """A row of a file, with its fields, for each row that a listing has left out: nobody takes a part for the whole."""
    for one in sorted(rows):
        yield dict.fromkeys(FIELDS) | {"error_message": f"row {one} cannot be read: see `audit verify`"}


def task_names(session: Session, part: str) -> Sequence[str]:
    """The names of the tasks that have executions, and that are `part` or end with it.

    It looks each name up in the index by task, so it costs a few reads for each name and not one for each row.
    """
    row = ExecutionRow
    names = select(func.min(row.task).label("name")).cte("names", recursive=True)
    following = select(func.min(row.task)).where(row.task > names.c.name).scalar_subquery()
    names = names.union_all(select(following).where(names.c.name.is_not(None)))
    found = session.scalars(select(names.c.name).where(names.c.name.is_not(None)))
    return [name for name in found if name == part or name.endswith(f".{part}")]


def action_names(session: Session) -> list[str]:
    """The actions of which the audit has rows."""
    return sorted(session.scalars(select(AuditRow.action).distinct()))


def _executions(
    session: Session, which: AuditFilter, limit: int, after: Position | None, left_out: set[str]
) -> list[AuditLine]:
    row = ExecutionRow
    pairs: tuple[tuple[ColumnElement[Any] | InstrumentedAttribute[Any], str | None], ...] = (
        (row.actor, which.actor),
        (row.queue, which.queue),
        (row.message_id, which.id),
        (row.kind, which.outcome),
        (row.worker, which.worker),
        (row.release, which.release),
    )
    conditions = [column == cut(value) for column, value in pairs if value is not None]
    if which.task is not None:
        conditions.append(row.task.in_(task_names(session, cut(which.task))))
    conditions += _within(row.ended_at, row.id, "execution", which, after)
    query = select(row).where(*conditions).order_by(row.ended_at.desc(), row.id.desc()).limit(limit)
    query = query.options(defer(row.traceback, raiseload=True))
    return [_of_execution(one) for one in _readable(session, query, row, left_out)]


def _actions(
    session: Session, which: AuditFilter, limit: int, after: Position | None, left_out: set[str]
) -> list[AuditLine]:
    row = AuditRow
    conditions: list[ColumnElement[bool]] = []
    if which.actor is not None:
        conditions.append(row.actor == cut(which.actor))
    if which.id is not None:
        conditions.append(row.target == cut(which.id))
    if which.action is not None:
        action = cut(which.action)
        conditions.append(or_(row.action == action, row.action.startswith(f"{action} ", autoescape=True)))
    conditions += _within(row.at, row.id, "action", which, after)
    query = select(row).where(*conditions).order_by(row.at.desc(), row.id.desc()).limit(limit)
    return [_of_action(one) for one in _readable(session, query, row, left_out)]


def _readable(
    session: Session, query: Select[R], row: type[ExecutionRow | AuditRow], left_out: set[str]
) -> Sequence[R]:
    """The rows of a query that can be read; others take the places of those that cannot."""
    while True:
        good = query.where(row.id.not_in(left_out)) if left_out else query
        try:
            return session.scalars(good).all()
        except Exception as error:
            if not is_unreadable(error):
                raise
            session.expunge_all()  # what was read before the row that could not be
            bad = _unreadable(session, row, session.scalars(good.with_only_columns(row.id)).all())
            if not bad:
                raise
            left_out |= bad
            logger.warning("the audit: %s; see `audit verify`", left_out_text(bad))
            if len(left_out) > MOST_LEFT_OUT:
                raise BusinessError(
                    f"more than {MOST_LEFT_OUT} rows of the audit cannot be read: see `audit verify`"
                ) from error


def _unreadable(session: Session, row: type[ExecutionRow | AuditRow], ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    readable(session, row.metadata.tables[row.__tablename__], ids, lambda id_, _: found.add(id_))
    return found


def _within(
    at: InstrumentedAttribute[datetime],
    id_: InstrumentedAttribute[str],
    of: Kind,
    which: AuditFilter,
    after: Position | None,
) -> list[ColumnElement[bool]]:
    """The bounds of time, and those of the page."""
    found: list[ColumnElement[bool]] = []
    if which.since is not None:
        found.append(at >= which.since)
    if which.until is not None:
        found.append(at < which.until)
    if after is None:
        return found
    if KINDS.index(of) > KINDS.index(after.of):  # those of the same moment came before
        return [*found, at < after.at]
    found.append(at <= after.at)
    if of == after.of:  # apart from the line above, which an index can answer
        found.append(or_(at < after.at, and_(at == after.at, id_ < after.row_id)))
    return found


def _of_execution(row: ExecutionRow) -> AuditLine:
    return AuditLine(
        row_id=row.id,
        at=row.ended_at,
        of="execution",
        actor=row.actor,
        task=row.task,
        queue=row.queue,
        id=row.message_id,
        attempt=row.attempt,
        generation=row.generation,
        worker=row.worker,
        release=row.release,
        outcome=row.kind,
        started_at=row.started_at,
        runtime=row.runtime,
        error=row.error,
        error_message=row.error_message,
    )


def _of_action(row: AuditRow) -> AuditLine:
    after = (
        {name: value for name, value in row.after.items() if name != SEEN}
        if isinstance(row.after, Mapping)
        else row.after
    )
    outcome = after.get("outcome") if isinstance(after, Mapping) else None
    return AuditLine(
        row_id=row.id,
        at=row.at,
        of="action",
        actor=row.actor,
        action=row.action,
        target=row.target,
        reason=row.reason,
        before=for_people(row.before),
        after=for_people(after),
        outcome=outcome if outcome in OUTCOMES else None,
    )
