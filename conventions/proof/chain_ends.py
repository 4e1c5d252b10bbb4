"""The ends of the chains as SQL has them, for who looks and locks nothing."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from conventions.core.audit_keys import AuditKeys
from conventions.proof.heads import Head
from conventions.proof.proven_tables import TABLES
from conventions.storage.tables import SegmentRow


def ends(session: Session) -> dict[str, SegmentRow]:
    """The last segment of each chain that has begun, by the chain's name."""
    row = SegmentRow
    found = {}
    for table in TABLES:
        end = session.scalar(select(row).where(row.chain == table.name).order_by(row.number.desc()).limit(1))
        if end is not None:
            found[table.name] = end
    return found


def segments_by_key(session: Session) -> dict[str, int]:
    """How many segments each key has sealed, by its name."""
    row = SegmentRow
    query = select(row.key, func.count()).where(row.number > 0).group_by(row.key)
    return {key: number for key, number in session.execute(query)}  # noqa: C416  # typed


def heads(session: Session, keys: AuditKeys) -> dict[str, Head]:
    """The same as heads, of those whose key is here."""
    return {name: Head.sign(end, keys) for name, end in ends(session).items() if end.key in keys}
