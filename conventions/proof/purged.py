"""Up to which segment the rows of each chain were deleted by right: actions that a holder of a key of the audit has written say so."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from conventions.core.audit_keys import AuditKeys
from conventions.proof import actor_codes
from conventions.proof.proven_tables import ACTIONS, TABLES, Row
from conventions.proof.row_codes import RowCodes
from conventions.storage.tables import SegmentRow

PURGE = "audit purge"  # the action
Purged = dict[str, int]
"""The number of the last segment without rows of each chain, by the chain's name; 0: none."""


def purged(
    session: Session, keys: AuditKeys, segments: Sequence[SegmentRow], fits: Callable[[Row, str], bool] | None = None
) -> Purged:
    """What the actions of the chain say.

    Args:
        session: a session.
        keys: of the audit.
        segments: of the chain of actions, as they were sealed.
        fits: whether a row has the code of its place under a key.
    """
    rows, found = ACTIONS.rows, {table.name: 0 for table in TABLES}
    looks = fits or _looking(session, keys)
    for row in _readable(
        session,
        list(session.scalars(select(rows.c.id).where(rows.c.action == PURGE, rows.c.number != 0, rows.c.number > 0))),
    ):
        segment = next((one for one in segments if one.first <= row["number"] <= one.last), None)
        if segment is None or not isinstance(row["after"], dict) or not looks(row, segment.key):
            continue
        for table in TABLES:
            number = row["after"].get(table.name)
            # An action explains what was before it alone.
            if type(number) is int and (table is not ACTIONS or number < segment.number):
                found[table.name] = max(number, found[table.name])
    return found


def _readable(session: Session, ids: Sequence[str]) -> list[Row]:
    """The rows, without those that cannot be read, since somebody has written them so: they explain nothing."""
    rows = ACTIONS.rows
    try:
        return [dict(row) for row in session.execute(select(rows).where(rows.c.id.in_(ids))).mappings()]
    except Exception:  # noqa: BLE001  # each driver and each type has its own errors
        return [] if len(ids) == 1 else [row for one in ids for row in _readable(session, [one])]


def _looking(session: Session, keys: AuditKeys) -> Callable[[Row, str], bool]:
    def fits(row: Row, key: str) -> bool:
        codes = actor_codes.codes_of(session, [row["actor"]], create=False)
        return row_fits(RowCodes(ACTIONS, keys, key), row, codes.get(row["actor"]))

    return fits


def row_fits(codes: RowCodes, row: Row, actor_code: str | None, number: int | None = None) -> bool:
    """Whether the code of a row is that of what it says, and of its number, or of another one."""
    place: Any = row["number"] if number is None else number
    if row["code"] is None:
        return False
    if row["erased"] is not None:
        return codes.same(codes.erased_code(row, place), row["erased"])
    return actor_code is not None and codes.same(codes.code(row, place, actor_code), row["code"])
