"""Rows that a command or a page has written wait until the recorder puts them into the chain.

Who writes one has no key of the audit. It signs the row with a key of messages, so that nobody who has the database alone can add one.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from conventions.core.audit_keys import AuditKeys
from conventions.core.entry_signatures import KEY_NOT_HERE, EntrySignatures
from conventions.proof.chain import Chain
from conventions.proof.proven_tables import ACTIONS, ProvenTable
from conventions.storage.database import SIGNER, Database, utc_now
from conventions.storage.tables import AuditRow

AT_ONCE = 500
UNPROVEN, NOT_BELIEVED, OF_ANOTHER_KEY = 0, -1, -2  # in place of a number: rows that are in no chain
OTHER_RELEASE = timedelta(
    days=1
)  # after the begin of a chain in which a release before it may still write rows, without a signature
COUNTED = (
    "permission denied",
    "send refused",
)  # actions of which a row counts those of a minute, and changes until that is over
LATE = timedelta(seconds=80)  # a minute, and what the sealer may take
AFTER = timedelta(seconds=5)  # the end of the minute: a row is not sealed before


def sign(session: Session, table: ProvenTable, row: dict[str, Any]) -> None:
    """Let a row wait for its number, signed where this process has keys."""
    signatures: EntrySignatures | None = session.info[SIGNER]() if SIGNER in session.info else None
    row["number"] = None
    row["code"] = None if signatures is None else signatures.code_of_row(table.unsealed_text(row))


def seal(database: Database, table: ProvenTable, keys: AuditKeys, believed: EntrySignatures | None) -> int:
    """Put the rows that wait into the chain, some in each transaction. Returns how many.

    A row that is not believed stays out of it, and `audit verify` names it.

    Args:
        database: the records.
        table: of the chain.
        keys: of the audit.
        believed: whose rows are; `None`: everybody's, since there are no keys of messages.

    Raises:
        ConfigurationError: see `Chain`.
        SQLAlchemyError: the rest waits.
    """
    sealed = 0
    while True:
        with database.session(read_only=True) as session:
            if not _waiting(session, table, 1):
                return sealed
        with database.session() as session:
            chain = Chain(session, table, keys)
            chain.lock()  # before the rows are read: nobody else numbers them then
            rows = _waiting(session, table, AT_ONCE)
            good = list(_believed(session, table, rows, believed, chain.began))
            chain.number(good)
            for row in good:
                change = update(table.table).where(table.table.id == row["id"])
                session.execute(change.values(number=row["number"], code=row["code"]))
            sealed += len(good)


def forgive(session: Session, table: ProvenTable) -> None:
    """Look again at rows whose key was not here: it may be here now."""
    row = table.table
    session.execute(update(row).where(row.number != 0, row.number == OF_ANOTHER_KEY).values(number=None))


def waits_since(session: Session, table: ProvenTable) -> datetime | None:
    """Of when the oldest row is that waits; `None`: none does."""
    row = table.table
    at = getattr(row, table.at)
    found: datetime | None = session.scalar(select(func.min(at, type_=at.type)).where(row.number.is_(None)))
    return found


def is_late(session: Session, table: ProvenTable) -> bool:
    """Whether a row waits for longer than it should: one that counts has a minute more."""
    since = waits_since(session, table)
    return since is not None and utc_now() - since > LATE


def has_refused(session: Session, table: ProvenTable) -> bool:
    """Whether there are rows that were not believed."""
    row = table.table
    return session.scalar(select(row.id).where(row.number != 0, row.number < 0).limit(1)) is not None


def _waiting(session: Session, table: ProvenTable, most: int) -> list[dict[str, Any]]:
    rows = table.rows
    query = select(rows).where(rows.c.number.is_(None)).order_by(rows.c[table.at], rows.c.id).limit(most)
    if table is ACTIONS:
        minute = (utc_now() - AFTER).replace(second=0, microsecond=0)
        query = query.where((AuditRow.at < minute) | AuditRow.action.not_in(COUNTED))
    return [dict(row) for row in session.execute(query).mappings()]


def _believed(
    session: Session, table: ProvenTable, rows: list[dict[str, Any]], believed: EntrySignatures | None, began: datetime
) -> Iterator[dict[str, Any]]:
    """The rows that are; the others get a number that says why they are in no chain. `began`: when the chain did."""
    for row in rows:
        fault = believed.fault_of_row(table.unsealed_text(row), row["code"]) if believed else ""
        if not fault:
            yield row
            continue
        number = OF_ANOTHER_KEY if fault == KEY_NOT_HERE else NOT_BELIEVED
        if row["code"] is None and row[table.at] < began + OTHER_RELEASE:
            number = UNPROVEN
        session.execute(update(table.table).where(table.table.id == row["id"]).values(number=number))


def minute_of(at: datetime) -> datetime:
    """The minute that a moment is in, in UTC."""
    return at.astimezone(UTC).replace(second=0, microsecond=0)
