"""Equal denials of a minute are one row of the audit, which says how many they were: a storm of them would hide all else (R22).

The row counts until the minute is over and it gets its place in the chain, see `proof/waiting_rows.py`. What comes later for that minute begins a
further row.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from conventions.proof import waiting_rows
from conventions.proof.chain import Chain
from conventions.proof.proven_tables import ACTIONS
from conventions.proof.unreadable_rows import readable
from conventions.proof.waiting_rows import SEEN
from conventions.records.audit import row_of
from conventions.records.audit_entry import MOMENT, AuditEntry
from conventions.storage.database import insert_into
from conventions.storage.tables import AuditRow

COUNT = "count"  # in `after`
MOST_SEEN = 500  # ids that a row remembers, so that an entry which is read again does not count again


def count(session: Session, entries: Iterable[tuple[AuditEntry, datetime]], chain: Chain | None = None) -> None:
    """Add entries to the rows of their minutes.

    Args:
        session: a transaction.
        entries: with the time of each. Two are equal by who, what, why, and the task in `after`; the row has the target of the first one.
        chain: of the actions. It is locked, so that no row gets its place meanwhile.
    """
    groups: dict[tuple[Any, ...], list[tuple[AuditEntry, datetime]]] = {}
    for entry, at in entries:
        new = row_of(entry, at)
        groups.setdefault((waiting_rows.minute_of(at), *_name(new)), []).append((entry, at))
    if groups and chain is not None:
        chain.lock()
    for key in sorted(groups, key=str):
        _count(session, key[0], groups[key])


def _name(row: dict[str, Any]) -> tuple[Any, ...]:
    """What equal rows have in common."""
    task = row["after"].get("task") if isinstance(row["after"], dict) else None
    return row["actor"], row["action"], row["reason"], task


def _count(session: Session, minute: datetime, entries: Sequence[tuple[AuditEntry, datetime]]) -> None:
    ids = [entry.id[:13] for entry, _ in entries]
    first, at = entries[0]
    new = row_of(first, at)
    row = _counting(session, minute, new)
    if row is None:
        seen = list(dict.fromkeys(ids))
        told = {name: value for name, value in (new["after"] or {}).items() if name != MOMENT}
        new |= {"after": {**told, COUNT: len(seen), SEEN: seen[:MOST_SEEN]}, "erased": None}
        waiting_rows.sign(session, ACTIONS, new)
        session.execute(insert_into(session, AuditRow).on_conflict_do_nothing(index_elements=["id"]), new)
        return
    seen = row["after"][SEEN]
    fresh = [one for one in dict.fromkeys(ids) if one not in seen]
    changed = {
        **row,
        "after": {**row["after"], COUNT: row["after"][COUNT] + len(fresh), SEEN: [*seen, *fresh][:MOST_SEEN]},
    }
    waiting_rows.sign(session, ACTIONS, changed)
    same = (AuditRow.id == row["id"], AuditRow.number.is_(None), AuditRow.code.is_not_distinct_from(row["code"]))
    session.execute(update(AuditRow).where(*same).values(after=changed["after"], code=changed["code"]))


def _counting(session: Session, minute: datetime, new: dict[str, Any]) -> dict[str, Any] | None:
    """The row that counts these, of those that wait. Only one that is as it was signed: what somebody has made of it is not signed again."""
    rows = ACTIONS.rows
    query = (
        select(rows.c.id)
        .where(
            rows.c.number.is_(None),
            rows.c.at >= minute,
            rows.c.at < minute + timedelta(minutes=1),
            rows.c.action == new["action"],
        )
        .order_by(rows.c.at, rows.c.id)
    )
    believed = waiting_rows.signatures_of(session)
    ids = session.scalars(query).all()
    for row in readable(session, rows, ids) if ids else ():  # `audit verify` names one that cannot be read
        counts = (
            isinstance(row["after"], dict)
            and isinstance(row["after"].get(COUNT), int)
            and isinstance(row["after"].get(SEEN), list)
        )
        if counts and _name(row) == _name(new) and not waiting_rows.fault_of(ACTIONS, row, believed):
            return row
    return None
