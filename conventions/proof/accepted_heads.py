"""Heads of before that a chain does not have any more, and somebody has said why: the database was restored from a copy.

Only a holder of a key of the audit says so, and names each head. So one of another chain, or of rows that are cut off later, is still a fault.
"""

from collections.abc import Callable, Sequence

from sqlalchemy.orm import Session

from conventions.core.audit_keys import AuditKeys
from conventions.proof.proven_tables import Row
from conventions.proof.sealed_actions import sealed_actions
from conventions.storage.tables import SegmentRow

ACCEPT = "audit accept"  # the action
MOST = 100  # heads of one action


def accepted_heads(
    session: Session, keys: AuditKeys, segments: Sequence[SegmentRow], fits: Callable[[Row, str], bool] | None = None
) -> frozenset[str]:
    """The heads, as texts, that the actions of the chain name. For the arguments see `sealed_actions`."""
    found: set[str] = set()
    for row, _ in sealed_actions(session, keys, segments, ACCEPT, fits):
        if isinstance(row["before"], list):
            found.update(one for one in row["before"] if isinstance(one, str))
    return frozenset(found)
