"""Rows that a command or a page has written wait until the recorder puts them into the chain.

Who writes one has no key of the audit. It signs the row with a key of messages, so that nobody who has the database alone can add one.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from conventions.core.audit_keys import RESERVED, AuditKeys
from conventions.core.entry_signatures import KEY_NOT_HERE, EntrySignatures
from conventions.proof.chain import LATEST, Chain
from conventions.proof.proven_tables import ACTIONS, FORM, ProvenTable, Row
from conventions.proof.unreadable_rows import ODD, is_unreadable, readable
from conventions.storage.database import SIGNER, Database, utc_now
from conventions.storage.tables import AuditRow, SegmentRow

AT_ONCE = 500
UNPROVEN, NOT_BELIEVED, OF_ANOTHER_KEY = 0, -1, -2  # in place of a number: rows that are in no chain
OTHER_RELEASE = timedelta(
    days=1
)  # after the begin of a chain in which a release before it may still write rows, without a signature
COUNTED = (
    "permission denied",
    "send refused",
)  # actions of which a row counts those of a minute, and changes until that is over
SEEN = "seen"  # in `after` of a row that counts, until it is in the chain: what it has counted
LATE = timedelta(seconds=80)  # a minute, and what the sealer may take
AFTER = timedelta(seconds=5)  # the end of the minute: a row is not sealed before


def sign(session: Session, table: ProvenTable, row: dict[str, Any]) -> None:
    """Let a row wait for its number, signed where this process has keys."""
    signatures = signatures_of(session)
    row["number"] = None
    row["code"] = None if signatures is None else signatures.code_of_row(table.unsealed_text(row))


def sign_all(session: Session, table: ProvenTable, rows: Sequence[dict[str, Any]]) -> None:
    """The same of many. Where no chain has begun they stay without a signature: they are older than the chain, and prove nothing."""
    if signatures_of(session) is not None and _has_chain(session, table):
        for row in rows:
            sign(session, table, row)
    else:
        for row in rows:
            row["number"] = row["code"] = None


def _has_chain(session: Session, table: ProvenTable) -> bool:
    query = select(SegmentRow.number).where(SegmentRow.chain == table.name, SegmentRow.number == 0)
    return session.scalar(query) is not None


def signatures_of(session: Session) -> EntrySignatures | None:
    """Sign rows, and verify those that wait; `None`: there are no keys."""
    found: EntrySignatures | None = session.info[SIGNER]() if SIGNER in session.info else None
    return found


def fault_of(table: ProvenTable, row: Row, believed: EntrySignatures | None) -> str:
    """Why a row that waits is not believed; empty: it is."""
    if table is ACTIONS and str(row["action"]).startswith(RESERVED):
        return "nobody but who has a key of the audit writes this action"
    if believed is None:
        return ""
    try:
        faults = [believed.fault_of_row(table.unsealed_text(row, form), row["code"]) for form in range(FORM, 0, -1)]
    except ODD as error:
        return f"it cannot be read ({type(error).__name__})"
    return "" if "" in faults else faults[0]


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
            if not _some_wait(session, table):
                return sealed
        with database.session() as session:
            chain = Chain(session, table, keys)
            chain.lock()  # before the rows are read: nobody else numbers them then
            rows = _rows(session, table, _ids(session, table, AT_ONCE))
            good = list(_believed(session, table, rows, believed, chain.began))
            for row in good:
                if table is ACTIONS and row["action"] in COUNTED and isinstance(row["after"], dict):
                    row["after"] = {name: value for name, value in row["after"].items() if name != SEEN}
            chain.number(good)
            for row in good:
                values = {"number": row["number"], "code": row["code"]}
                if table is ACTIONS:
                    values["after"] = row["after"]
                session.execute(update(table.table).where(table.table.id == row["id"]).values(**values))
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
    return session.scalar(select(row.number).where(row.number != 0, row.number < 0).limit(1)) is not None


def _some_wait(session: Session, table: ProvenTable) -> bool:
    try:
        return bool(session.scalars(_waiting(table, 1)).all())
    except Exception as error:
        if not is_unreadable(error):
            raise
        return True  # `_ids` leaves it out


def _waiting(table: ProvenTable, most: int) -> Select[tuple[str]]:
    rows = table.rows
    query = select(rows.c.id).where(rows.c.number.is_(None)).order_by(rows.c[table.at], rows.c.id).limit(most)
    if table is ACTIONS:
        now = utc_now()
        minute, latest = (now - AFTER).replace(second=0, microsecond=0), now + LATEST
        query = query.where((AuditRow.at < minute) | (AuditRow.at > latest) | AuditRow.action.not_in(COUNTED))
    return query


def _ids(session: Session, table: ProvenTable, most: int) -> list[str]:
    try:
        return list(session.scalars(_waiting(table, most)))
    except Exception as error:
        if not is_unreadable(error):
            raise
        _leave_out_unreadable(session, table)
        return list(session.scalars(_waiting(table, most)))


def _leave_out_unreadable(session: Session, table: ProvenTable) -> None:
    """Leave rows out of the chain whose id cannot be read. Only SQLite has such."""
    rows = table.rows
    for hexadecimal in session.scalars(select(func.hex(rows.c.id)).where(rows.c.number.is_(None))).all():
        try:
            bytes.fromhex(hexadecimal).decode()
        except UnicodeDecodeError:
            session.execute(update(rows).where(func.hex(rows.c.id) == hexadecimal).values(number=NOT_BELIEVED))


def _rows(session: Session, table: ProvenTable, ids: list[str]) -> list[dict[str, Any]]:
    """The rows in order. One that cannot be read stays out of the chain."""
    return readable(session, table.rows, ids, lambda id_, _: _leave_out(session, table, id_, NOT_BELIEVED))


def _believed(
    session: Session, table: ProvenTable, rows: list[dict[str, Any]], believed: EntrySignatures | None, began: datetime
) -> Iterator[dict[str, Any]]:
    """The rows that are; the others get a number that says why they are in no chain. `began`: when the chain did."""
    for row in rows:
        fault = fault_of(table, row, believed)
        if not fault:
            yield row
            continue
        number = OF_ANOTHER_KEY if fault == KEY_NOT_HERE else NOT_BELIEVED
        if row["code"] is None and is_of_before(row[table.at], began):
            number = UNPROVEN
        _leave_out(session, table, row["id"], number)


def is_of_before(at: datetime, began: datetime) -> bool:
    """Whether a row without a signature may be of a release before; `began`: when the chain did."""
    return at < began + OTHER_RELEASE


def _leave_out(session: Session, table: ProvenTable, id_: str, number: int) -> None:
    session.execute(update(table.table).where(table.table.id == id_).values(number=number))


def minute_of(at: datetime) -> datetime:
    """The minute that a moment is in, in UTC."""
    return at.astimezone(UTC).replace(second=0, microsecond=0)
