"""Failures of two causes, and what the tests of dead letters do with them."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from conventions.core.error_text import describe
from conventions.core.errors import BusinessError
from conventions.dead_letters import groups as letter_groups
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters import record_letters
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.groups import LetterGroup
from conventions.records import executions
from conventions.records.journal import Event, JournalEntry
from conventions.storage.database import Database, utc_now
from conventions.storage.tables import DeadLetterRow


def raised_by(function: Callable[[], object]) -> Exception:
    """The error of a function, with its traceback."""
    with pytest.raises(Exception) as raised:  # noqa: PT011  # any error is what is wanted
        function()
    return raised.value


def charge_card() -> None:
    """One cause."""
    raise BusinessError(f"card of user {id(object())} was declined")


def look_up() -> None:
    """Another cause."""
    raise BusinessError("no such user")


def failure(
    message_id: str = "m1",
    error: BaseException | None = None,
    *,
    attempts: int = 5,
    fence: int = 0,
    at: datetime | None = None,
    stored: bytes | None = None,
    **values: Any,
) -> JournalEntry:
    """The last failure of a message, as the recorder reads it; the error was raised by the task."""
    defaults: dict[str, Any] = {
        "kind": "dead",
        "task": "Send",
        "queue": "mail",
        "actor": "u-42",
        "attempt": attempts,
        "token": uuid4().hex,
        "arguments": {"user_id": 7},
        "headers": {"x_key": "k"},
    } | values
    described = describe(defaults["task"], error or raised_by(look_up))
    event = Event.decode(Event(message_id, **{"failure": described} | defaults).encode(None))
    return JournalEntry(b"1-1", event, fence, at or utc_now(), stored)


def record(database: Database, *entries: JournalEntry) -> None:
    """Record events, each in its own transaction, as the recorder does."""
    for entry in entries:
        with database.session() as session:
            if entry.event.id in executions.record(session, [entry]) and entry.event.kind == "dead":
                record_letters.record(session, [entry])


def get(database: Database, message_id: str = "m1") -> DeadLetterRow:
    """One letter that must be there, readable after its session."""
    with database.session() as session:
        session.expire_on_commit = False
        letter = dead_letters.get(session, message_id)
    assert letter is not None
    return letter


def ids(database: Database, which: Filter, limit: int = 100) -> list[str]:
    """The ids that a filter finds."""
    with database.session() as session:
        return [letter.id for letter in dead_letters.listing(session, which, limit)]


def groups(database: Database, which: Filter | None = None, limit: int = 100) -> list[LetterGroup]:
    """The groups that a filter finds."""
    with database.session() as session:
        return letter_groups.groups(session, which or Filter(), limit)
