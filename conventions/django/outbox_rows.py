"""Rows of the outbox in a transaction of Django's, and which of its databases they go to."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction

from conventions.django.database_address import moment_for, place_fault
from conventions.storage.database import Database
from conventions.storage.tables import OutboxRow

_COLUMNS = ("id", "application", "task", "arguments", "headers", "options", "written_at", "due_at", "tries")
_VALUES = ", ".join(["%s"] * len(_COLUMNS))
_INSERT = f"INSERT INTO {OutboxRow.__tablename__} ({', '.join(_COLUMNS)}) VALUES ({_VALUES}) ON CONFLICT DO NOTHING"  # noqa: S608  # constants


def insert_rows(
    database: Database,
    using: str | None,
    entries: Sequence[Mapping[str, Any]],
    due_at: datetime,
    tell: Callable[[], None],
) -> None:
    """Insert them, and tell the relay when they are committed.

    Args:
        database: where our tables are.
        using: an alias of `DATABASES`; `None`: Django's default.
        entries: the columns that are theirs. One whose id is there already changes nothing.
        due_at: when the relay may take them.
        tell: called after the commit; it raises nothing.

    Raises:
        TypeError: that database is not where our tables are.
    """
    using = using or DEFAULT_DB_ALIAS
    if fault := place_fault(using, database):
        raise TypeError(f"delay_on_commit on {using!r}: {fault}")
    connection: Any = connections[using]
    rows = []
    for one in entries:
        moments = (moment_for(connection, one["written_at"]), moment_for(connection, due_at))
        rows.append([*(one[name] for name in _COLUMNS[:6]), *moments, 0])
    with transaction.atomic(using=using), connection.cursor() as cursor:
        cursor.executemany(_INSERT, rows)
        transaction.on_commit(tell, using=using, robust=True)
