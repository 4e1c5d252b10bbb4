"""Signatures of `run` that cannot be checked are refused when the module is imported."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from conventions.core.errors import DeclarationError
from conventions.declare.arguments_as_json import Arguments


def arguments_of(function: Callable[..., Any]) -> Arguments:
    """The arguments of a task whose `run` is this function."""
    return Arguments("Task", function)


def run_untyped(self: object, user_id) -> None:  # type: ignore[no-untyped-def]  # what is tested
    """No annotation."""


def run_many(self: object, *ids: int) -> None:
    """Any number of arguments."""


def run_named(self: object, **ids: int) -> None:
    """Any names."""


def run_positional(self: object, user_id: int, /) -> None:
    """An argument without a name for callers; messages carry names."""


def run_undefined(self: object, user_id: "NoSuchType") -> None:  # type: ignore[name-defined]  # noqa: F821  # what is tested
    """A type that is not defined."""


def run_socket(self: object, value: Callable[[int], object] | type) -> None:
    """A type, which JSON has not."""


class Opaque:
    """A class of somebody that pydantic knows nothing of."""


def run_opaque(self: object, value: Opaque) -> None:
    """A class that cannot be checked."""


@dataclass
class Selection:
    """An argument of several parts."""

    ids: frozenset[int]


def run_set(self: object, chosen: list[Selection]) -> None:
    """A set, which has no order: one job would have two payloads, two keys and two fingerprints (R4)."""


def run_wrong_default(self: object, user_id: int = None) -> None:  # type: ignore[assignment]  # noqa: RUF013  # what is tested
    """A default that its own annotation refuses."""


@pytest.mark.parametrize(
    ("function", "advice"),
    [
        (run_untyped, "user_id: int"),
        (run_many, "list"),
        (run_named, "dict"),
        (run_positional, "user_id"),
        (run_undefined, "NoSuchType"),
        (run_opaque, "Opaque"),
        (run_wrong_default, "user_id"),
        (run_set, "list"),
    ],
)
def test_a_signature_that_cannot_be_checked_is_refused_at_import(function: Callable[..., Any], advice: str) -> None:
    """With the argument's name and what to write."""
    with pytest.raises(DeclarationError, match=advice):
        arguments_of(function).check_types()


def test_named_arguments_may_go_without_a_type_where_the_platform_knows_it() -> None:
    """`chunk` of a batch is a list, whatever is written."""
    arguments = Arguments("Task", run_untyped, untyped=("user_id",))
    assert arguments.bind((7,)) == {"user_id": 7}
