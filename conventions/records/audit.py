"""The audit: who did what, to which target, when and why, and what it changed (R22). Rows are only added."""

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Text, cast, func, select
from sqlalchemy.orm import Session

from conventions.core.error_text import clean, cut
from conventions.proof import waiting_rows
from conventions.proof.chain import Chain
from conventions.proof.proven_tables import ACTIONS
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import insert_into, utc_now
from conventions.storage.tables import AuditRow


def record(session: Session, entry: AuditEntry) -> None:
    """Add a row in the transaction of the action. So there is never one without the other. It waits for its place in the chain."""
    row = row_of(entry, utc_now())
    waiting_rows.sign(session, ACTIONS, row)
    session.add(AuditRow(**row))


def record_once(session: Session, entries: Sequence[tuple[AuditEntry, datetime]], chain: Chain | None = None) -> None:
    """Add entries from the journal, with the time of each action. Entries that are already there stay as they are.

    Args:
        session: a transaction.
        entries: with the time of each.
        chain: of the actions; without it the rows wait for their place in it.
    """
    if not entries:
        return
    rows = {entry.id: row_of(entry, at) for entry, at in entries}
    if chain is not None:
        chain.lock()
        there = set(session.scalars(select(AuditRow.id).where(AuditRow.id.in_(rows))))
        new = [rows[id_] for id_ in sorted(rows.keys() - there)]
        chain.number(new)
        if new:
            session.execute(insert_into(session, AuditRow), new)
        return
    for row in rows.values():
        waiting_rows.sign(session, ACTIONS, row)
    insert = insert_into(session, AuditRow).on_conflict_do_nothing(index_elements=["id"])
    # Sorted, so that two writers of the same rows cannot deadlock.
    session.execute(insert, [rows[id_] for id_ in sorted(rows)])


def row_of(entry: AuditEntry, at: datetime) -> dict[str, Any]:
    """The columns of an entry, without its place in the chain."""
    return {
        "id": entry.id,
        "at": at,
        "actor": cut(entry.actor),
        "action": entry.action,
        "target": cut(entry.target),
        "reason": None if entry.reason is None else clean(entry.reason),
        "before": _as_json(entry.before),
        "after": _as_json(entry.after),
    }


def listing(
    session: Session,
    limit: int,
    target: str | None = None,
    *,
    only: Collection[str] = (),
    without: Collection[str] = (),
    before: datetime | None = None,
) -> Sequence[AuditRow]:
    """The last entries, newest first. With `target`, only its entries; `only` of these actions, or `without` them; `before` a moment."""
    query = select(AuditRow).order_by(AuditRow.at.desc(), AuditRow.id).limit(limit)
    if target is not None:
        query = query.where(AuditRow.target == cut(target))
    if only:
        query = query.where(AuditRow.action.in_(only))
    if without:
        query = query.where(AuditRow.action.not_in(without))
    if before is not None:
        query = query.where(AuditRow.at < before)
    return session.scalars(query).all()


class Group(NamedTuple):
    """Entries of one action, by one actor and for one reason, within one minute.

    Attributes:
        target: of one of them.
        first, last: when.
        number: how many.
    """

    actor: str
    action: str
    reason: str
    target: str
    first: datetime
    last: datetime
    number: int


def by_minute(session: Session, limit: int, actions: Collection[str], since: datetime) -> list[Group]:
    """The last groups of these actions since a moment, the earlier first."""
    row, first = AuditRow, func.min(AuditRow.at, type_=AuditRow.at.type)
    minute = func.substr(cast(row.at, Text), 1, len("2026-11-30 12:00"))
    query = (
        select(row.actor, row.action, row.reason, func.min(row.target), first, func.max(row.at, type_=row.at.type), func.count())
        .where(row.action.in_(actions), row.at >= since)
        .group_by(row.actor, row.action, row.reason, minute)
        .order_by(first.desc())
        .limit(limit)
    )  # fmt: skip
    rows: Iterable[Any] = session.execute(query)
    return [Group(actor, action, reason or "", *rest) for actor, action, reason, *rest in rows][::-1]


def _as_json(value: Any) -> Any:
    """A value as it comes back from SQL: its code must be the same then."""
    return value if value is None else json.loads(json.dumps(value))
