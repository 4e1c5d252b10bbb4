"""Heads of before that a chain does not have any more. The sealer says so; and somebody says why: the database was restored from a copy.

Only a holder of a key of the audit says so, and names each head. So one of another chain, or of rows that are cut off later, is still a fault.
"""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from conventions.core.audit_keys import AuditKeys
from conventions.proof.sealed_actions import Fits, sealed_actions
from conventions.proof.signed_heads import Head, read
from conventions.storage.tables import SegmentRow

ACCEPT, CUT = "audit accept", "audit cut"  # the actions
MOST = 100  # heads of one action


def accepted_heads(
    session: Session, keys: AuditKeys, segments: Sequence[SegmentRow], fits: Fits | None = None
) -> frozenset[str]:
    """The heads, as texts, that the actions of the chain name. For the arguments see `sealed_actions`."""
    found: set[str] = set()
    for row, _ in sealed_actions(session, keys, segments, ACCEPT, fits):
        if isinstance(row["before"], list):
            found.update(one for one in row["before"] if isinstance(one, str))
    return frozenset(found)


def lost_heads(
    session: Session, keys: AuditKeys, segments: Sequence[SegmentRow], fits: Fits | None = None
) -> list[Head]:
    """The heads that the sealer had told, and found to be cut off, as its actions say. For the arguments see `sealed_actions`."""
    found = (
        read(row["before"])
        for row, _ in sealed_actions(session, keys, segments, CUT, fits)
        if isinstance(row["before"], str)
    )
    return [head for head in found if head is not None]
