"""Old rows of executions and actions are deleted by whole segments of their chains, so that what stays still fits (R10, R22).

The segments stay. An action says which of them have no rows any more, and is in its chain before the first row goes: `audit verify` finds rows that
are missing for another reason. Only who has a key of the audit writes that action, and looks first that the segments are as they were sealed: nobody
makes young rows old by changing a date.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from conventions.core.actor import current_actor
from conventions.core.audit_keys import AuditKeys
from conventions.proof.chain import Chain, is_genuine
from conventions.proof.deleted_segments import PURGE, last_purged, mark, marks
from conventions.proof.proven_tables import ACTIONS, EXECUTIONS, TABLES, ProvenTable
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import Database, utc_now
from conventions.storage.tables import SegmentRow

logger = logging.getLogger(__name__)

BATCH = 1000  # rows deleted in one transaction


@dataclass(frozen=True)
class Deleted:
    """How many rows were deleted."""

    executions: int
    actions: int


def purge(
    database: Database,
    keys: AuditKeys | None,
    executions_before: datetime,
    actions_before: datetime,
    *,
    batch: int = BATCH,
) -> Deleted:
    """Delete the rows of segments in which all is older than a moment, and rows of no chain that are.

    Rows go some at a time, each in a transaction of its own. A purge that was stopped is finished by the next one. A segment is a day at most, so a row
    stays for up to a day longer than it must.

    Args:
        database: the records.
        keys: of the audit; without them rows that are in a chain stay, and the log says so.
        executions_before: older ones go.
        actions_before: the same.
        batch: rows of one transaction.

    Raises:
        ConfigurationError: see `Chain`; nothing of the chains was deleted.
        SQLAlchemyError: the rest stays.
    """
    limits = {EXECUTIONS.name: executions_before, ACTIONS.name: actions_before}
    ends = _mark(database, keys, limits) if keys is not None else {}
    if keys is None and _is_sealed(database):
        logger.warning("rows that are sealed are not deleted: CONVENTIONS_AUDIT_KEYS is not set here")
    found = [_delete(database, table, ends.get(table.name, 0), limits[table.name], batch) for table in TABLES]
    return Deleted(*found)


def _is_sealed(database: Database) -> bool:
    with database.session(read_only=True) as session:
        return session.scalar(select(SegmentRow.number).limit(1)) is not None


def _mark(database: Database, keys: AuditKeys, limits: dict[str, datetime]) -> dict[str, int]:
    """Say which segments have no rows from now on. Returns the number of the last row of each chain that may go."""
    with database.session() as session:
        chains = {table.name: Chain(session, table, keys) for table in TABLES}
        for chain in chains.values():
            chain.lock()
        segments = {table.name: _segments(session, table, keys) for table in TABLES}
        said = marks(session, keys, segments[ACTIONS.name])
        before = {name: last_purged(said[name], found) for name, found in segments.items()}
        last: dict[str, int] = {}
        for table in TABLES:
            last[table.name] = _last_old(segments[table.name], before[table.name], limits[table.name])
            if last[table.name] == segments[table.name][-1].number > before[table.name]:
                chains[table.name].close()
        if last != before:
            entry = AuditEntry(
                current_actor(), PURGE, "segments", None, _marked(segments, before), _marked(segments, last)
            )
            audit.record_once(session, [(entry, utc_now())], chains[ACTIONS.name])
        return {
            table.name: next((one.last for one in segments[table.name] if one.number == last[table.name]), 0)
            for table in TABLES
        }


def _segments(session: Session, table: ProvenTable, keys: AuditKeys) -> Sequence[SegmentRow]:
    """The segments of a chain in order, up to the first one that is not as it was sealed: what is behind it stays."""
    row = SegmentRow
    found: list[SegmentRow] = []
    for number, one in enumerate(session.scalars(select(row).where(row.chain == table.name).order_by(row.number))):
        if one.number != number or one.key not in keys or not is_genuine(one, keys):
            break
        found.append(one)
    return found


def _marked(segments: dict[str, Sequence[SegmentRow]], last: dict[str, int]) -> dict[str, Any]:
    return {name: mark(number, segments[name][number].hash) for name, number in last.items() if number}


def _last_old(segments: Sequence[SegmentRow], before: int, limit: datetime) -> int:
    """The last segment up to which all is older than the limit, or was purged before."""
    last = before
    for one in segments[1:]:
        if one.number <= before:
            continue
        if one.last_at >= limit or one.last < one.first:
            break
        last = one.number
    return last


def _delete(database: Database, table: ProvenTable, end: int, limit: datetime, batch: int) -> int:
    row = table.table
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
