"""Callbacks have their ids when a message is sent, so that a job that ends twice sends the same messages twice."""

from collections.abc import Callable
from typing import Any

import pytest
from celery import chain, chord, group

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from tests.workers import messages


class Note(ImmediateTask):
    """Take one number."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None: ...


def ids_of_callbacks(app: ConventionsApp) -> list[Any]:
    """The ids of all callbacks of the messages that are sent, at any depth. `None`: it has none."""
    left: list[Any] = [one.following for one in messages(app)]
    found = []
    while left:
        one = left.pop()
        if isinstance(one, list):
            left += one
        elif isinstance(one, dict):
            for name in ("callbacks", "errbacks", "link", "link_error"):
                steps = one.get(name) or []
                found += [step["options"].get("task_id") for step in steps]
            left += one.values()
    return found


def told() -> Any:
    """A step with a callback, which has a callback and an errback."""
    return Note.si(2).set(link=Note.si(3).set(link=Note.si(4), link_error=Note.si(5)))


SENDS: dict[str, tuple[Callable[[], Any], int]] = {
    "a callback": (lambda: Note.si(1).set(link=told()), 4),
    "an errback": (lambda: Note.si(1).set(link_error=told()), 4),
    "a chain": (lambda: chain(Note.si(1), told(), told()), 6),
    "a group in a chain": (lambda: chain(Note.si(1), group(told(), told())), 6),
    "the body of a chord": (lambda: chord([Note.si(1)], told()), 3),
    "a chord in a chain": (lambda: chain(Note.si(1), chord([told()], told())), 6),
    "a chain in a callback": (lambda: Note.si(1).set(link=chain(told(), told())), 7),
}


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery
@pytest.mark.parametrize("kind", SENDS)
def test_each_callback_has_an_id_at_any_depth(app: ConventionsApp, kind: str) -> None:
    """And each send has ids of its own: what the caller has stays as it is."""
    build, count = SENDS[kind]
    signature = build()
    before = repr(dict(build()))
    signature.apply_async()
    first = ids_of_callbacks(app)
    assert (len(first), None in first, len(set(first))) == (count, False, count)
    app.control.purge()
    build().apply_async()
    assert not set(first) & set(ids_of_callbacks(app))
    assert repr(dict(build())) == before


def test_a_signature_that_is_sent_twice(app: ConventionsApp) -> None:
    """Its callbacks are two messages."""
    link = told()
    for number in (7, 8):
        Note.apply_async((number,), link=link)
    found = ids_of_callbacks(app)
    assert (len(found), len(set(found))) == (8, 8)
    assert "task_id" not in link.options["link"].options
