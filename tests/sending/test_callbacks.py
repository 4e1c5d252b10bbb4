"""The ids of callbacks follow from the id of their message, so a job that ends twice sends the same messages twice."""

from collections.abc import Callable
from typing import Any

import pytest
from celery import chain, chord, group

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.execution.step_ids import identified
from tests.workers import messages


class Note(ImmediateTask):
    """Take one number."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None: ...


def tasks_of(step: Any) -> list[Any]:
    """The tasks that a step is made of."""
    within = [step["kwargs"].get(name) or [] for name in ("tasks", "header", "body")]
    parts = [one for some in within for one in ([some] if isinstance(some, dict) else some)]
    return [task for part in parts for task in tasks_of(part)] if step.get("subtask_type") else [step]


def ids_of_callbacks(app: ConventionsApp) -> list[Any]:
    """The ids of all tasks that the callbacks of the messages are made of. `None`: one has none."""
    steps = [step for one in messages(app) for name in ("callbacks", "errbacks") for step in one.following[name] or []]
    return [task["options"].get("task_id") for step in steps for task in tasks_of(step)]


CALLBACKS: dict[str, tuple[Callable[[], Any], int]] = {
    "a job": (lambda: Note.si(2), 1),
    "some": (lambda: [Note.si(2), Note.si(2), Note.si(3)], 3),
    "a chain": (lambda: chain(Note.si(2), Note.si(3)), 2),
    "a group": (lambda: group(Note.si(2), chain(Note.si(3), Note.si(4))), 3),
    "a chord": (lambda: chord([Note.si(2), Note.si(3)], Note.si(4)), 3),
}


@pytest.mark.parametrize("name", ["link", "link_error"])
@pytest.mark.parametrize("kind", CALLBACKS)
def test_callbacks_have_ids_that_follow_from_that_of_their_message(app: ConventionsApp, kind: str, name: str) -> None:
    """Each one its own; the same ones where the message is made again, and others in another message."""
    build, count = CALLBACKS[kind]
    steps = build()
    before = repr(steps), [repr(dict(task)) for step in ([steps] if isinstance(steps, dict) else steps) for task in tasks_of(step)]  # fmt: skip
    found = []
    for task_id in ("1", "1", "2"):
        Note.apply_async((1,), task_id=task_id, **{name: steps})
        found.append(ids_of_callbacks(app))
        app.control.purge()
    assert (len(found[0]), None in found[0], len(set(found[0]))) == (count, False, count)
    assert found[0] == found[1]
    assert not set(found[0]) & set(found[2])
    after = repr(steps), [repr(dict(task)) for step in ([steps] if isinstance(steps, dict) else steps) for task in tasks_of(step)]  # fmt: skip
    assert before == after


def test_a_link_of_a_group_is_a_message_for_each_member(app: ConventionsApp) -> None:
    """Under one id, the second of them would be a duplicate of the first."""
    group(Note.si(1), Note.si(2)).set(link=Note.si(3)).apply_async()
    assert len(set(ids_of_callbacks(app))) == 2


def test_a_step_that_has_an_id_keeps_it() -> None:
    """Only what has none gets one."""
    step = Note.si(2).set(task_id="its own")
    assert identified(step, "1", "link", 0).id == "its own"
    whole = identified(group(step, Note.si(3)), "1", "link", 0)
    assert [task["options"]["task_id"] == "its own" for task in tasks_of(whole)] == [True, False]
