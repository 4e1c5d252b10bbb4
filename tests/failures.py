"""Failures of two causes, and what the tests of dead letters do with them."""

from collections.abc import Callable
from typing import Any

import pytest

from conventions import dead_letters
from conventions.database import Database, DeadLetterRow
from conventions.dead_letters import Failure, Filter, Group
from conventions.errors import BusinessError


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


def failure(message_id: str = "m1", error: BaseException | None = None, **values: Any) -> Failure:
    """A failure as the pipeline sees it."""
    defaults: dict[str, Any] = {
        "id": message_id,
        "task": "Send",
        "queue": "mail",
        "error": error or raised_by(look_up),
        "attempts": 5,
        "actor": "u-42",
        "arguments": {"user_id": 7},
        "headers": {"x_key": "k"},
    }
    return Failure(**defaults | values)


def record(database: Database, *failures: Failure) -> None:
    """Record failures, each in its own transaction, as the pipeline does."""
    for one in failures:
        with database.session() as session:
            dead_letters.record(session, one)


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


def groups(database: Database, which: Filter | None = None, limit: int = 100) -> list[Group]:
    """The groups that a filter finds."""
    with database.session() as session:
        return dead_letters.groups(session, which or Filter(), limit)
