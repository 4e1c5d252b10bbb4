"""Answers are remembered for some seconds, and what is no answer is no permission (R20)."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions import PermissionDenied
from conventions.core.errors import ConfigurationError
from conventions.core.settings import Settings
from conventions.permission.authorizer import load
from conventions.permission.decisions import MOST, REMEMBERED, NoAnswer, Permissions
from conventions.permission.question import Question

READ = Question("report:read", "mine.Read", {"report": 1})


class Book:
    """An authorizer that notes each question."""

    looks_at_arguments = True

    def __init__(self, *allowed: str, answer: Any = None) -> None:
        self.allowed, self.answer = set(allowed), answer
        self.asked: list[tuple[str, str, Any]] = []

    def allows(self, actor: str, permission: str, task: str, arguments: Mapping[str, Any]) -> bool:
        """As it was told."""
        del task
        self.asked.append((actor, permission, arguments.get("report")))
        if isinstance(self.answer, Exception):
            raise self.answer
        return actor in self.allowed if self.answer is None else self.answer


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def allowed(permissions: Permissions, *actors: str, question: Question = READ) -> bool:
    """Whether all of them may."""
    try:
        permissions.check(actors, question)
    except PermissionDenied:
        return False
    return True


def test_each_of_them_needs_it() -> None:
    """The actor, and whoever has changed the message; the text names who may not, and what it needs."""
    book = Book("u-1", "ann")
    permissions = Permissions(lambda: book)
    assert allowed(permissions, "u-1", "ann", "u-1")
    assert [actor for actor, *_ in book.asked] == ["u-1", "ann"], "once each"
    with pytest.raises(PermissionDenied, match=r"mine\.Read: bob may not run it: it requires report:read"):
        permissions.check(["u-1", "bob"], READ)


def test_who_has_not_signed_is_not_asked_for() -> None:
    """Whatever the authorizer would say of that name."""
    book = Book("unsigned")
    with pytest.raises(PermissionDenied, match="nobody has signed the message"):
        Permissions(lambda: book).check(["unsigned"], READ)
    assert book.asked == []


def test_a_role_that_is_taken_away_counts_for_five_seconds_more_at_most() -> None:
    """From the question on, not from the answer: it may have taken long."""
    clock, book = Clock(), Book("u-1")
    permissions = Permissions(lambda: book, clock)
    assert allowed(permissions, "u-1")
    book.allowed.clear()
    clock.now += REMEMBERED - 0.01
    assert allowed(permissions, "u-1")
    clock.now += 0.02
    assert not allowed(permissions, "u-1")
    book.allowed.add("u-1")
    assert not allowed(permissions, "u-1"), "a refusal, too"
    assert REMEMBERED <= 5


@given(
    st.lists(st.tuples(st.sampled_from(["u-1", "u-2"]), st.sampled_from(["a", "b"]), st.integers(0, 2)), max_size=40),
    st.booleans(),
)
def test_one_call_for_each_distinct_question(asked: list[tuple[str, str, int]], looks: bool) -> None:
    """With the arguments where they count; without, whatever they are."""
    book = Book("u-1", "u-2")
    book.looks_at_arguments = looks
    permissions = Permissions(lambda: book, Clock())
    for actor, permission, report in asked:
        permissions.check([actor], Question(permission, "mine.Read", {"report": report}))
    distinct = set(asked) if looks else {one[:2] for one in asked}
    assert len(book.asked) == len(distinct)


def test_what_is_remembered_has_an_end() -> None:
    """A million actors do not fill a process."""
    book = Book()
    book.looks_at_arguments = False
    permissions = Permissions(lambda: book, Clock())
    for number in range(MOST + 5):
        assert not allowed(permissions, f"u-{number}")
    assert len(permissions._answers) <= MOST


@pytest.mark.parametrize(
    "answer", [1, "yes", None, object(), OSError("away"), PermissionDenied("mine")], ids=lambda one: type(one).__name__
)
def test_no_answer_is_no_permission(answer: Any) -> None:
    """Nothing is remembered of it, and what counts as true is not true: such as a coroutine."""
    book = Book("u-1", answer=answer)
    if answer is None:
        book.allows = lambda *_: None  # type: ignore[method-assign, assignment]
    permissions = Permissions(lambda: book)
    for _ in range(2):
        with pytest.raises(
            NoAnswer, match=r"mine\.Read: nobody can say whether u-1 may run it, which requires report:read"
        ):
            permissions.check(["u-1"], READ)
    assert len(book.asked) == (0 if answer is None else 2)


def make(_app: object) -> Book:
    """By a function."""
    return Book()


def no_authorizer(_app: object) -> object:
    """Something else."""
    return object()


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("nowhere:Authorizer", "nowhere:Authorizer cannot be made: ModuleNotFoundError"),
        (f"{__name__}:Missing", "cannot be made: AttributeError"),
        (f"{__name__}:Clock", "cannot be made: TypeError"),
        (f"{__name__}:no_authorizer", "made object, which has no allows"),
    ],
)
def test_an_authorizer_that_cannot_be_made(address: str, fault: str) -> None:
    """Workers say so at their start."""
    assert isinstance(load(f"{__name__}:make", None), Book)
    with pytest.raises(ConfigurationError, match=fault):
        load(address, None)


@pytest.mark.parametrize("address", ["", "shop.permissions", "shop permissions:Mine", ":Mine", "shop:", "shop.:x"])
def test_an_address_that_is_none(address: str) -> None:
    """It is said with the other settings."""
    with pytest.raises(ConfigurationError, match="CONVENTIONS_AUTHORIZER: write module:NAME"):
        Settings.load(authorizer=address)


def test_nobody_changes_a_job_by_answering() -> None:
    """The arguments that an authorizer gets are a copy, at any depth."""
    payload: dict[str, Any] = {"ids": [1], "more": {"a": 1}}

    class Careless:
        def allows(self, actor: str, permission: str, task: str, arguments: Mapping[str, Any]) -> bool:
            del actor, permission, task
            arguments["ids"].append(666)
            arguments["more"].clear()
            return True

    Permissions(Careless).check(["u-1"], Question("read", "mine.Read", payload))
    assert payload == {"ids": [1], "more": {"a": 1}}
