"""Rows of a contact list: read from CSV one at a time, validated, written by upsert."""

import codecs
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import or_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from conventions import BusinessError
from tasks.tables import Contact

REQUIRED = ("email", "name")
OPTIONAL = ("company", "city", "country", "phone")
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
        reader, line = csv.DictReader(file, strict=True), 1
        try:
            names = [name.strip().lower() for name in reader.fieldnames or ()]
            missing = [name for name in REQUIRED if name not in names]
            if missing:
                raise BusinessError(f"{path.name}: the first line has no column {' and no column '.join(missing)}")
            reader.fieldnames = names
            line = reader.line_num + 1
            for row in reader:
                values = {name: (row.get(name) or "").strip() for name in (*REQUIRED, *OPTIONAL)}
                # A field with more values than the header has columns shows that a comma was not quoted.
                yield {LINE: line, **values, **({"surplus": len(row[None])} if None in row else {})}
                line = reader.line_num + 1
        except csv.Error as error:
            raise BusinessError(f"{path.name}, line {line}: not CSV: {error}") from error


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
    if row.get("surplus"):
        return f"{row['surplus']} more values than columns"
    for name in REQUIRED:
        if not row[name]:
            return f"{name} is empty"
    for name, limit in _LIMITS.items():
        if len(row[name]) > limit:
            return f"{name} has more than {limit} characters"
    if not _EMAIL.fullmatch(row["email"]):
        return "not an e-mail address"
    if row["country"] and not re.fullmatch(r"[A-Z]{2}", row["country"]):
        return "country is not a code of two capital letters"
    return None


def upsert(session: Session, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert the rows, or update the contacts that have their addresses; return how many contacts that were.

    A contact that is the same already keeps its `updated_at`. Addresses are compared in lower case. Of two rows with one address the later one counts: PostgreSQL refuses to
    touch a row twice in one statement.
    """
    now = datetime.now(UTC)
    latest = {
        row["email"].lower(): {name: row[name] for name in (*REQUIRED, *OPTIONAL)}
        | {"email": row["email"].lower(), "created_at": now, "updated_at": now}
        for row in rows
    }
    if not latest:
        return 0
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    # In one order everywhere, so that two chunks with common addresses cannot deadlock.
    statement = insert(Contact).values([latest[email] for email in sorted(latest)])
    changed = {name: statement.excluded[name] for name in ("name", *OPTIONAL, "updated_at")}
    differs = or_(*(getattr(Contact, name) != statement.excluded[name] for name in ("name", *OPTIONAL)))
    session.execute(statement.on_conflict_do_update(index_elements=["email"], set_=changed, where=differs))
    return len(latest)
