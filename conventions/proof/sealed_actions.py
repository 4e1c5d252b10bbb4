"""Actions that explain what is not there: only holders of a key of the audit write them, and each counts only as it was sealed."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session

from conventions.core.audit_keys import AuditKeys
from conventions.proof import actor_codes
from conventions.proof.proven_tables import ACTIONS, Row
from conventions.proof.row_codes import RowCodes
from conventions.proof.unreadable_rows import readable
from conventions.storage.tables import SegmentRow

Fits: TypeAlias = Callable[[Row, SegmentRow], bool]


def sealed_actions(
    session: Session,
    keys: AuditKeys,
    segments: Sequence[SegmentRow],
    action: str,
    fits: Fits | None = None,
) -> Iterator[tuple[Row, SegmentRow]]:
    """The rows of an action that are as they were sealed, each with its segment.

    Args:
        session: a session.
        keys: of the audit.
        segments: of the chain of actions, as they were sealed.
        action: its name.
        fits: whether a row has the code of its place in a segment.
    """
    rows, looks = ACTIONS.rows, fits or _looking(session, keys)
    named = select(rows.c.id).where(rows.c.action == action, rows.c.number != 0, rows.c.number > 0)
    for row in readable(session, rows, list(session.scalars(named))):
        segment = next((one for one in segments if one.first <= row["number"] <= one.last), None)
        if segment is not None and looks(row, segment):
            yield row, segment


def row_fits(codes: RowCodes, row: Row, actor_code: str | None, number: int | None = None) -> bool:
    """Whether the code of a row is that of what it says, and of its number, or of another one."""
    place: Any = row["number"] if number is None else number
    if row["code"] is None:
        return False
    if row["erased"] is not None:
        return codes.same(codes.erased_code(row, place), row["erased"])
    return actor_code is not None and codes.same(codes.code(row, place, actor_code), row["code"])


def _looking(session: Session, keys: AuditKeys) -> Fits:
    def fits(row: Row, segment: SegmentRow) -> bool:
        codes = actor_codes.codes_of(session, [row["actor"]], create=False)
        return row_fits(RowCodes(ACTIONS, keys, segment.key, segment.form), row, codes.get(row["actor"]))

    return fits
