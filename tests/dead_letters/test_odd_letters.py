"""Whatever fails, and whatever it is called: its dead letter is kept (R17)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.filter import Filter
from conventions.storage.database import Database
from tests.databases import database  # noqa: F401  # a fixture
from tests.failures import failure, get, ids, raised_by, record


class Speechless(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


def deep() -> None:
    """Never comes back."""
    deep()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("with a NUL: \0"),
        ValueError("with half a character: \ud800"),
        ValueError(b"\xff", object()),
        ValueError("long " * 200_000),
        Speechless(),
        type("E" * 300, (Exception,), {})("a long name"),
        KeyboardInterrupt(),
        ExceptionGroup("several", [ValueError("a"), TypeError("b")]),
    ],
    ids=lambda error: type(error).__name__[:20],
)
def test_no_error_is_too_odd_to_be_kept(database: Database, error: BaseException) -> None:
    """A failure that cannot be stored would run again for ever, or be lost."""
    record(database, failure(error=error))
    assert get(database).error == type(error).__name__[:255]


def test_an_endless_recursion_is_kept(database: Database) -> None:
    """Its traceback has a thousand frames."""
    record(database, failure(error=raised_by(deep)))
    assert get(database).error == "RecursionError"


odd_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(st.characters(codec=None), max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(arguments=st.dictionaries(st.text(max_size=3), odd_json, max_size=3))
@example(arguments={"a": "\0", "b": "\ud800"})
@example(arguments={"a": float("nan"), "b": float("inf")})
@example(arguments={"a": 10**400})
def test_no_payload_is_too_odd_to_be_kept(database: Database, arguments: Mapping[str, Any]) -> None:
    """Whatever Python's JSON reads from a foreign message can be stored and shown."""
    record(database, failure(arguments=arguments, headers=arguments, message=arguments))
    assert list(get(database).arguments) == list(arguments)
    assert repr(dead_letters.message(get(database))) == repr(arguments)


def test_long_names_are_kept(database: Database) -> None:
    """A caller chose a long message id; a foreign message names a long task."""
    for long_id in ("i" * 200, "j" * 300):
        record(database, failure(long_id, task="t" * 300, queue="q" * 300, actor="a" * 300, key="k" * 300))
    assert sorted(ids(database, Filter())) == ["i" * 200, "j" * 255]
