"""Old rows of executions and actions are deleted by whole segments of their chains, so that what stays still fits (R10, R22).

The segments stay. An action says which of them have no rows any more, and is there before the first row goes: `audit verify` finds rows that are
missing for another reason.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from conventions.core.actor import current_actor
from conventions.proof.proven_tables import ACTIONS, EXECUTIONS, TABLES, ProvenTable
from conventions.proof.verify import PURGE
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import Database
from conventions.storage.tables import SegmentRow

BATCH = 1000  # rows deleted in one transaction


@dataclass(frozen=True)
class Purged:
    """How many rows were deleted."""

    executions: int
    actions: int


def purge(database: Database, executions_before: datetime, actions_before: datetime, *, batch: int = BATCH) -> Purged:
    """Delete the rows of segments in which all is older than a moment, and rows of no chain that are.

    Rows go some at a time, each in a transaction of its own. A purge that was stopped is finished by the next one. A segment is a day at most, so a row
    stays for up to a day longer than it must.

    Raises:
        SQLAlchemyError: the rest stays.
    """
    limits = {EXECUTIONS.name: executions_before, ACTIONS.name: actions_before}
    with database.session() as session:
        last = {table.name: _last_old(session, table, limits[table.name]) for table in TABLES}
        before = {table.name: _last_purged(session, table) for table in TABLES}
        if last != before:
            entry = AuditEntry(current_actor(), PURGE, "segments", None, before, last)
            audit.record(session, entry)
            for table in TABLES:
                row = SegmentRow
                marked = update(row).where(row.chain == table.name, row.number > 0, row.number <= last[table.name])
                session.execute(marked.where(row.purged_by.is_(None)).values(purged_by=entry.id))
    found = [_delete(database, table, last[table.name], limits[table.name], batch) for table in TABLES]
    return Purged(*found)


def _last_old(session: Session, table: ProvenTable, limit: datetime) -> int:
    """The last segment up to which all is older than the limit, or was purged before."""
    row = SegmentRow
    younger = select(row.number).where(
        row.chain == table.name, row.number > 0, row.last_at >= limit, row.purged_by.is_(None)
    )
    first = session.scalar(younger.order_by(row.number).limit(1))
    query = select(row.number).where(row.chain == table.name)
    if first is not None:
        query = query.where(row.number < first)
    return session.scalar(query.order_by(row.number.desc()).limit(1)) or 0


def _last_purged(session: Session, table: ProvenTable) -> int:
    row = SegmentRow
    purged = select(row.number).where(row.chain == table.name, row.purged_by.is_not(None))
    return session.scalar(purged.order_by(row.number.desc()).limit(1)) or 0


def _delete(database: Database, table: ProvenTable, last: int, limit: datetime, batch: int) -> int:
    row, segment = table.table, SegmentRow
    with database.session(read_only=True) as session:
        query = select(segment.last).where(segment.chain == table.name, segment.number == last)
        end = session.scalar(query) or 0
    old = getattr(row, table.at) < limit
    conditions: tuple[ColumnElement[bool], ...] = (
        (row.number != 0) & (row.number > 0) & (row.number <= end),
        old & (row.number == 0),
        old & row.number.is_(None),
    )
    deleted = 0
    for condition in conditions:
        while True:
            with database.session() as session:
                found = session.scalars(select(row.id).where(condition).limit(batch)).all()
                if found:
                    session.execute(delete(row).where(row.id.in_(found)))
            deleted += len(found)
            if len(found) < batch:
                break
    return deleted
