"""Rows that somebody may have written so that they cannot be read: such a row is told apart, and holds up no other."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Table, select
from sqlalchemy.exc import DataError, OperationalError, StatementError
from sqlalchemy.orm import Session

ODD = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, RecursionError)
"""What reading a value raises that is none of its type."""


def is_unreadable(error: Exception) -> bool:
    """Whether an error is one of what SQL has, and not of SQL itself, which may answer later."""
    if isinstance(error, OperationalError):
        return "Could not decode to UTF-8" in str(error)  # SQLite takes any bytes for a text
    return isinstance(error, (DataError, *ODD)) or type(error) is StatementError


def readable(
    session: Session, rows: Table, ids: Sequence[str], unreadable: Callable[[str, Exception], object] | None = None
) -> list[dict[str, Any]]:
    """The rows of these ids, in the order of these.

    Args:
        session: a session.
        rows: the table.
        ids: of the rows.
        unreadable: is told the id of each row that cannot be read, and how that was seen.

    Raises: SQLAlchemyError: SQL does not answer.
    """
    try:
        found = {row["id"]: dict(row) for row in session.execute(select(rows).where(rows.c.id.in_(ids))).mappings()}
        return [found[one] for one in ids if one in found]
    except Exception as error:
        if not is_unreadable(error):
            raise
        if len(ids) > 1:
            return [row for one in ids for row in readable(session, rows, [one], unreadable)]
        if unreadable is not None:
            unreadable(ids[0], error)
        return []
