"""Rows of a contact list: read from CSV one at a time, validated, written by upsert."""

import codecs
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import and_, case, or_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from conventions import BusinessError
from tasks.tables import Contact

REQUIRED = ("email", "name")
OPTIONAL = ("company", "city", "country", "phone")
_DATA = ("name", *OPTIONAL)
LINE = "line"  # where a row began in the file; the header is line 1

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
_LIMITS = {"email": 254, "name": 200, "company": 200, "city": 100, "country": 2, "phone": 40}
_BLOCK = 1 << 20  # bytes read at a time when the encoding is found out


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read the file's rows, one at a time, each with the number of its first line.

    Raises:
        BusinessError: neither UTF-8 nor Shift_JIS (cp932), a column is missing, or not CSV.
    """
    with path.open(encoding=detect_encoding(path), newline="") as file:
        reader, line = csv.reader(file, strict=True), 1
        try:
            names = [name.strip().lower() for name in next(reader, [])]
            missing = [name for name in REQUIRED if name not in names]
            if missing:
                raise BusinessError(f"{path.name}: the first line has no column {' and no column '.join(missing)}")
            line = reader.line_num + 1
            for values in reader:
                if values:  # an empty line is no row
                    yield {LINE: line} | _row(names, values)
                line = reader.line_num + 1
        except csv.Error as error:
            raise BusinessError(f"{path.name}, line {line}: not CSV: {error}") from error


def _row(names: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
    found = dict(zip(names, values, strict=False))
    # One character too many shows the fault; whole books would make a chunk too large to be sent.
    row: dict[str, Any] = {name: found.get(name, "").strip()[: limit + 1] for name, limit in _LIMITS.items()}
    # More values than columns: a comma was not quoted. Fewer: the row was cut off.
    surplus = len(values) - len(names)
    return row | {"surplus": surplus} if surplus else row


def count_rows(path: Path) -> int:
    """How many rows `read_rows` will give. Raises: BusinessError, as `read_rows` does."""
    return sum(1 for _ in read_rows(path))


def detect_encoding(path: Path) -> str:
    """`utf-8-sig` (UTF-8, with or without a byte order mark) or `cp932`, whichever can decode the whole file.

    Raises:
        BusinessError: neither can.
    """
    for encoding in ("utf-8-sig", "cp932"):
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            continue
        return encoding
    raise BusinessError(f"{path.name}: neither UTF-8 nor Shift_JIS (cp932)")


def fault_of(row: Mapping[str, Any]) -> str | None:
    """Why the row cannot be imported, or `None`."""
    return next(_faults(row), None)


def _faults(row: Mapping[str, Any]) -> Iterator[str]:
    if surplus := row.get("surplus"):
        yield f"{abs(surplus)} {'more' if surplus > 0 else 'fewer'} values than columns"
    for name in REQUIRED:
        if not row[name]:
            yield f"{name} is empty"
    for name, limit in _LIMITS.items():
        if len(row[name]) > limit:
            yield f"{name} has more than {limit} characters"
        if "\0" in row[name]:  # PostgreSQL could not store it
            yield f"{name} has a null character"
    if not _EMAIL.fullmatch(row["email"]):
        yield "not an e-mail address"
    if row["country"] and not re.fullmatch(r"[A-Z]{2}", row["country"]):
        yield "country is not a code of two capital letters"


def upsert(session: Session, rows: Sequence[Mapping[str, Any]], source: str) -> int:
    """Insert the rows, or update the contacts that have their addresses; return how many contacts that were.

    Of all rows of one source with one address the one furthest down counts, in whatever order and however often they
    are written. A contact that was written last by another source, or by none, is updated by any row. One that is the
    same already keeps its `updated_at`. Addresses are compared in lower case.

    Args:
        session: of SQLite or PostgreSQL.
        rows: as `read_rows` gives them, without a fault.
        source: the SHA-256 of their file.
    """
    now = datetime.now(UTC)
    marks = {"source": source, "created_at": now, "updated_at": now}
    latest = {
        row["email"].lower(): {name: row[name] for name in _DATA}
        | {"email": row["email"].lower(), "source_line": row[LINE], **marks}
        for row in sorted(rows, key=itemgetter(LINE))
    }
    if not latest:
        return 0
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(Contact)
    new = statement.excluded
    differs = or_(*(getattr(Contact, name) != new[name] for name in _DATA))
    counts = or_(
        Contact.source.is_distinct_from(new.source),
        Contact.source_line < new.source_line,
        and_(Contact.source_line == new.source_line, differs),
    )
    # A row that counts leaves its mark also where all else is the same: a row further up may be written after it.
    changed: dict[str, Any] = {name: new[name] for name in (*_DATA, "source", "source_line")}
    changed["updated_at"] = case((differs, new.updated_at), else_=Contact.updated_at)
    statement = statement.on_conflict_do_update(index_elements=["email"], set_=changed, where=counts)
    # One statement many times, not one with many rows, which SQLAlchemy would compile anew each time. In one order
    # everywhere, so that two chunks with common addresses cannot deadlock.
    session.connection().execute(statement, [latest[email] for email in sorted(latest)])
    return len(latest)
