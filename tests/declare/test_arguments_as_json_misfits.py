"""Arguments that do not fit: the cause says which kind of misfit it is and of which declared argument, and no value (R18)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from conventions.core.error_text import describe
from conventions.core.errors import BusinessError, CredentialInPayload, PayloadError
from conventions.declare.arguments_as_json import Arguments
from tests.failures import raised_by


@dataclass
class Card:
    """An argument of several parts."""

    number: str


def run_before(self: object, user_id: int) -> None:
    """The release before renames an argument."""


def run_after(self: object, customer_id: int) -> None:
    """The release after it."""


def run_many(self: object, user_id: int, card: Card, note: str | None = None, *, rate: float = 1.0) -> None:
    """An argument of each kind."""


def refused(run: Callable[..., Any], *args: Any, **kwargs: Any) -> PayloadError:
    """What a worker makes of a message that does not fit."""
    error = raised_by(lambda: Arguments("Send", run).load(args, kwargs))
    assert isinstance(error, PayloadError)
    return error


def cause(error: BaseException) -> str:
    """Its fingerprint."""
    return describe("Send", error).fingerprint


def test_two_releases_that_refuse_each_other_s_messages_are_two_causes() -> None:
    """Both raise at the same line of ours, with the same type; in a rolling deploy they were one group."""
    old, new = refused(run_before, customer_id=7), refused(run_after, user_id=7)
    assert (old.misfit, new.misfit) == ("missing user_id", "missing customer_id")
    assert cause(old) != cause(new)


@pytest.mark.parametrize(
    ("args", "kwargs", "misfit"),
    [
        ((), {}, "missing user_id"),
        ((7,), {}, "missing card"),
        ((), {"card": {"number": "1"}}, "missing user_id"),
        ((7, {"number": "1"}), {"user_id": 7}, "twice user_id"),
        ((7, {"number": "1"}, None, 1.0), {}, "too many"),
        ((7, {"number": "1"}), {"users": 1}, "unknown"),
        (("7", {"number": "1"}), {}, "wrong user_id"),
        ((7, {"number": 1}), {}, "wrong card"),
        ((7, {}), {}, "incomplete card"),
        ((7, {"number": "1", "brand": "x"}), {}, "too much in card"),
        ((7, {"number": "1"}, 5), {"rate": "x"}, "wrong note"),
    ],
)
def test_a_misfit_is_told_by_its_kind_and_the_first_declared_name(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], misfit: str
) -> None:
    """All of them are told apart."""
    assert refused(run_many, *args, **kwargs).misfit == misfit


def test_arguments_that_fit_have_no_misfit() -> None:
    """Whichever way they are given, and with defaults."""
    arguments = Arguments("Send", run_many)
    assert {arguments.misfit((7, {})), arguments.misfit((7,), {"card": {}, "rate": 2.0})} == {""}


def test_each_kind_of_misfit_is_a_cause_of_its_own() -> None:
    """Also of two arguments at one line of ours."""
    errors = [
        refused(run_many, "7", {"number": "1"}),
        refused(run_many, 7, {"number": 1}),
        refused(run_many, 7, {}),
        refused(run_many, 7),
        refused(run_many, 7, {"number": "1"}, users=1),
    ]
    assert len({*map(cause, errors)}) == len(errors)


def test_values_and_names_that_a_sender_made_up_are_no_causes() -> None:
    """Otherwise each message were a group of its own."""
    unknown = {cause(refused(run_before, **{"user_id": 7, f"made_up_{number}": number})) for number in range(20)}
    wrong = {cause(refused(run_before, user_id=f"text {number}")) for number in range(20)}
    keys = {cause(refused(run_many, 7, {f"key {number}": 1, "number": "1"})) for number in range(20)}
    assert (len(unknown), len(wrong), len(keys)) == (1, 1, 1)


def test_a_job_that_sends_what_does_not_fit() -> None:
    """It is the same check of types; half a character is a fault of its own, which names no argument."""
    arguments = Arguments("Send", run_many)
    wrong = [raised_by(lambda: arguments.bind(("7", Card("1")))), raised_by(lambda: arguments.bind((7, Card("1"), 5)))]
    assert [getattr(error, "misfit", None) for error in wrong] == ["wrong user_id", "wrong note"]
    assert cause(wrong[0]) != cause(wrong[1])
    half = raised_by(lambda: arguments.bind((7, Card("1"), "\ud800")))
    assert isinstance(half, PayloadError)
    assert half.misfit == ""


class OwnError(Exception):
    """An error of a team that has the same word."""

    misfit = "missing a"


@pytest.mark.parametrize(
    ("error", "fingerprint"),
    [
        (ValueError("x"), "69c28b6a111cdb5a"),
        (TypeError("x"), "0b8a0bba0e417c9d"),
        (BusinessError("x"), "4cef00d832c476fb"),
        (PayloadError("x"), "578665ec9ba90b79"),
        (CredentialInPayload("x"), "bf0152a40a500d42"),
        (OwnError("x"), "ad9594a5075dd669"),
    ],
)
def test_other_errors_keep_the_fingerprint_that_they_always_had(error: Exception, fingerprint: str) -> None:
    """Groups of letters have notes, by fingerprint. These were written down before misfits were part of any."""
    namespace: dict[str, Any] = {"__name__": "jobs"}
    exec(compile("def run(error):\n    raise error\n", "/srv/jobs.py", "exec"), namespace)
    assert cause(raised_by(lambda: namespace["run"](error))) == fingerprint
