"""The ends of the chains as SQL has them, for who looks and locks nothing."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from conventions.core.audit_keys import AuditKeys
from conventions.proof.chain import following, is_genuine
from conventions.proof.heads import Head
from conventions.proof.proven_tables import TABLES, ProvenTable
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
    """The same as heads, of those whose key is here, and that are as they were sealed."""
    return {
        name: Head.sign(end, keys) for name, end in ends(session).items() if end.key in keys and is_genuine(end, keys)
    }


def goes_on(session: Session, table: ProvenTable, before: Head, now: Head) -> bool:
    """Whether a chain that ended so before has gone on to its end now: by the codes of the rows between. Rows that were purged meanwhile cannot be compared."""
    if now.last <= before.last:
        return (now.last, now.hash) == (before.last, before.hash)
    number, code = table.rows.c.number, table.rows.c.code
    query = select(code).where(number != 0, number > before.last, number <= now.last).order_by(number)
    codes: Sequence[str | None] = session.scalars(query).all()
    if len(codes) != now.last - before.last:
        return True  # `audit verify` says whether they may be missing
    hash_ = before.hash
    for one in codes:
        hash_ = following(hash_, one or "")
    return hash_ == now.hash
