"""Equal denials of a minute are one row of the audit, which says how many they were: a storm of them would hide all else (R22).

The row counts until the minute is over and it gets its place in the chain, see `proof/waiting_rows.py`. What comes later for that minute begins a
further row.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import count as numbers
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import update
from sqlalchemy.orm import Session

from conventions.proof import waiting_rows
from conventions.proof.chain import Chain
from conventions.proof.proven_tables import ACTIONS
from conventions.records.audit import row_of
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import insert_into
from conventions.storage.tables import AuditRow

COUNT = "count"  # in `after`
_NAMESPACE = UUID("7c1f2a5e-8f0a-5a3b-9a53-2f6f0f1f1a77")


def count(session: Session, entries: Iterable[tuple[AuditEntry, datetime]], chain: Chain | None = None) -> None:
    """Add entries to the rows of their minutes.

    Args:
        session: a transaction.
        entries: with the time of each. Two are equal by who, what, why, and the task in `after`; the row has the target of the first one.
        chain: of the actions. It is locked, so that no row gets its place meanwhile.
    """
    groups: dict[tuple[Any, ...], list[tuple[AuditEntry, datetime]]] = {}
    for entry, at in entries:
        task = entry.after.get("task") if isinstance(entry.after, dict) else None
        key = (waiting_rows.minute_of(at).isoformat(), entry.actor, entry.action, entry.reason, task)
        groups.setdefault(key, []).append((entry, at))
    if groups and chain is not None:
        chain.lock()
    for key in sorted(groups, key=str):
        _count(session, key, groups[key])


def _count(session: Session, key: tuple[Any, ...], entries: Sequence[tuple[AuditEntry, datetime]]) -> None:
    for number in numbers():
        id_ = str(uuid5(_NAMESPACE, json.dumps([*key, number])))
        row = session.get(AuditRow, id_, populate_existing=True)
        if row is None:
            entry, at = entries[0]
            new = row_of(entry, at) | {"id": id_, "erased": None}
            new["after"] = (new["after"] or {}) | {COUNT: len(entries)}
            waiting_rows.sign(session, ACTIONS, new)
            session.execute(insert_into(session, AuditRow), new)
            return
        if row.number is None:
            changed = {column.name: getattr(row, column.name) for column in AuditRow.__table__.columns}
            changed["after"] = {**row.after, COUNT: row.after[COUNT] + len(entries)}
            waiting_rows.sign(session, ACTIONS, changed)
            session.execute(
                update(AuditRow).where(AuditRow.id == id_).values(after=changed["after"], code=changed["code"])
            )
            return
