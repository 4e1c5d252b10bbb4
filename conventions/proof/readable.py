"""Rows that somebody may have written so that they cannot be read: such a row is told apart, and holds up no other."""

from collections.abc import Callable, Sequence

from sqlalchemy import Table, select
from sqlalchemy.exc import DataError, OperationalError, StatementError
from sqlalchemy.orm import Session

from conventions.proof.proven_tables import Row

ODD = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, RecursionError)
"""What reading a value raises that is none of its type."""


def is_unreadable(error: Exception) -> bool:
    """Whether an error is one of what SQL has, and not of SQL itself, which may answer later."""
    if isinstance(error, OperationalError):
        return "Could not decode to UTF-8" in str(error)  # SQLite takes any bytes for a text
    return isinstance(error, (DataError, *ODD)) or type(error) is StatementError


def readable(session: Session, rows: Table, ids: Sequence[str], unreadable: Callable[[str], object]) -> list[Row]:
    """The rows of these ids, in no order. `unreadable` is told the id of each that cannot be read.

    Raises: SQLAlchemyError: SQL does not answer.
    """
    try:
        return [dict(row) for row in session.execute(select(rows).where(rows.c.id.in_(ids))).mappings()]
    except Exception as error:
        if not is_unreadable(error):
            raise
        if len(ids) > 1:
            return [row for one in ids for row in readable(session, rows, [one], unreadable)]
        unreadable(ids[0])
        return []
