"""What must not be written beside the one transaction that `self.transaction()` commits: a retry would write it once more."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from conventions.core.errors import TransactionRefused
from conventions.django.sql_statements import writing_word


@contextmanager
def refusing_writes(using: str | None = None) -> Iterator[None]:
    """Refuse writes on every connection of Django that this thread has, but that of one alias.

    Args:
        using: the alias whose transaction is committed with the record; `None`: that is a session of SQLAlchemy.

    Raises:
        TransactionRefused: at the write.
    """

    def refuse(
        execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:  # Django's signature
        if (word := writing_word(sql)) is None:
            return execute(sql, params, many, context)
        alias = context["connection"].alias
        if using is None:
            raise TransactionRefused(
                f"{word} by Django's connection {alias!r} within self.transaction(), which commits what its session of SQLAlchemy "
                f"writes: write `with self.transaction(using={alias!r}):`, or write by the session"
            )
        raise TransactionRefused(
            f"{word} by Django's connection {alias!r} within self.transaction(using={using!r}), which would be committed alone, and "
            f"again by each retry: write it before or after the block, or by {using!r}"
        )

    with ExitStack() as stack:
        for alias in connections:
            with suppress(ImproperlyConfigured):  # nobody here can write by a driver that is not installed
                if alias != using:
                    stack.enter_context(connections[alias].execute_wrapper(refuse))
        yield
