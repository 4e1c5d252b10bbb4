"""Up to which segment the rows of each chain were deleted by right, as actions say."""

from collections.abc import Callable, Sequence

from sqlalchemy.orm import Session

from conventions.core.audit_keys import AuditKeys
from conventions.proof.proven_tables import ACTIONS, TABLES, Row
from conventions.proof.sealed_actions import sealed_actions
from conventions.storage.tables import SegmentRow

PURGE = "audit purge"  # the action
Purged = dict[str, int]
"""The number of the last segment without rows of each chain, by the chain's name; 0: none."""


def purged(
    session: Session, keys: AuditKeys, segments: Sequence[SegmentRow], fits: Callable[[Row, str], bool] | None = None
) -> Purged:
    """What the actions of the chain say. For the arguments see `sealed_actions`."""
    found = {table.name: 0 for table in TABLES}
    for row, segment in sealed_actions(session, keys, segments, PURGE, fits):
        for table in TABLES:
            number = row["after"].get(table.name) if isinstance(row["after"], dict) else None
            # An action explains what was before it alone.
            if type(number) is int and (table is not ACTIONS or number < segment.number):
                found[table.name] = max(number, found[table.name])
    return found
