"""Within `self.transaction()`, a write by Django's ORM is refused: it would be committed without the record, and twice by a retry."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import connections

from conventions.core.errors import TransactionRefused

_WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "TRUNCATE", "COPY"})

_AS_WRITER = (
    "IMMEDIATE",
    "EXCLUSIVE",
)  # SQLite has one writer, which is the session: a second one would wait for it, in vain


@contextmanager
def refusing_writes() -> Iterator[None]:
    """Refuse writes on every connection of Django that this thread has. Raises: TransactionRefused, at the write."""
    with ExitStack() as stack:
        for alias in connections:
            stack.enter_context(connections[alias].execute_wrapper(_refuse_writes))
        yield


def _refuse_writes(
    execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
) -> Any:  # Django's signature
    word, _, more = str(sql).lstrip(" \t\r\n(").upper().partition(" ")
    if word in _WRITES or (word == "BEGIN" and more.startswith(_AS_WRITER)):
        alias = context["connection"].alias
        raise TransactionRefused(
            f"{word} by Django's connection {alias!r} within self.transaction(), which commits what its session of SQLAlchemy writes: "
            f"write `with self.transaction(using={alias!r}):`, or write by the session"
        )
    return execute(sql, params, many, context)
