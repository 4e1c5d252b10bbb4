"""The ends of the chains as SQL has them, for who looks and locks nothing."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from conventions.core.audit_keys import AuditKeys
from conventions.proof.chain import following, is_genuine
from conventions.proof.deleted_segments import last_purged, marks
from conventions.proof.proven_tables import ACTIONS, TABLES, ProvenTable
from conventions.proof.signed_heads import Head
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


def goes_on(session: Session, table: ProvenTable, before: Head, now: Head, keys: AuditKeys) -> bool:
    """Whether a chain that ended so before has gone on to its end now: by the codes of the rows between.

    Rows may be missing in segments that were purged, as a sealed action says: there the hash at the end of the segment counts.
    """
    if now.last <= before.last:
        return (now.last, now.hash) == (before.last, before.hash)
    codes = _codes(session, table, before.last, now.last)
    if len(codes) == now.last - before.last:
        return _followed(before.hash, codes) == now.hash
    segments = genuine_segments(session, table, keys)  # the action was there before the first row went
    gone = last_purged(marks(session, keys, genuine_segments(session, ACTIONS, keys))[table.name], segments)
    hash_, last = before.hash, before.last
    for segment in segments:
        if segment.last <= last:
            continue
        if segment.number <= gone:
            hash_, last = segment.hash, segment.last
            continue
        end = min(segment.last, now.last)
        codes = _codes(session, table, last, end)
        if len(codes) != end - last:
            return False
        hash_, last = _followed(hash_, codes), end
    return hash_ == now.hash


def _codes(session: Session, table: ProvenTable, after: int, last: int) -> Sequence[str | None]:
    number, code = table.rows.c.number, table.rows.c.code
    query = select(code).where(number != 0, number > after, number <= last).order_by(number)
    return session.scalars(query).all()


def _followed(hash_: str, codes: Sequence[str | None]) -> str:
    for one in codes:
        hash_ = following(hash_, one or "")
    return hash_


def genuine_segments(session: Session, table: ProvenTable, keys: AuditKeys) -> list[SegmentRow]:
    """The segments of a chain in order, without those that are not as they were sealed."""
    row = SegmentRow
    found = session.scalars(select(row).where(row.chain == table.name).order_by(row.number))
    return [one for one in found if one.key in keys and is_genuine(one, keys)]
