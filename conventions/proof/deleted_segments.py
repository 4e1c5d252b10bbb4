"""Up to which segment the rows of each chain were deleted by right, as actions say."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from conventions.core.audit_keys import AuditKeys
from conventions.proof.proven_tables import ACTIONS, TABLES
from conventions.proof.sealed_actions import Fits, sealed_actions
from conventions.storage.tables import SegmentRow

PURGE = "audit purge"  # the action
Marks = dict[str, set[tuple[int, str]]]
"""Of each chain, by its name, numbers of segments that have no rows, and all before them, with the hash of the chain at their end."""


def marks(session: Session, keys: AuditKeys, segments: Sequence[SegmentRow], fits: Fits | None = None) -> Marks:
    """What the actions of the chain say. For the arguments see `sealed_actions`."""
    found: Marks = {table.name: set() for table in TABLES}
    for row, segment in sealed_actions(session, keys, segments, PURGE, fits):
        for table in TABLES:
            number, hash_ = _read(row["after"], table.name)
            # An action explains what was before it alone.
            if table is not ACTIONS or number < segment.number:
                found[table.name].add((number, hash_))
    return found


def last_purged(said: set[tuple[int, str]], segments: Sequence[SegmentRow]) -> int:
    """The number of the last segment without rows; 0: none. A mark of another chain, which was there before, says nothing of this one.

    Args:
        said: of this chain, see `Marks`.
        segments: of this chain, as they were sealed.
    """
    return max((one.number for one in segments if (one.number, one.hash) in said), default=0)


def mark(number: int, hash_: str) -> list[Any]:
    """What an action says of one chain."""
    return [number, hash_]


def _read(after: Any, chain: str) -> tuple[int, str]:
    match after.get(chain) if isinstance(after, dict) else None:
        case [int(number), str(hash_)]:
            return number, hash_
        case _:
            return 0, ""
