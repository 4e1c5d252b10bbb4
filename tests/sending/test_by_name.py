"""A task that is sent by its name, and functions that are no tasks of ours: checked as far as they are known here."""

# ruff: noqa: ARG005  # each way of sending is called alike

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import celery
import pytest
from celery import chain, chord, group, shared_task, signature
from celery.app.task import Context

from conventions import EVERY_ARGUMENT, ImmediateTask, Priority, acting_as
from conventions.app import ConventionsApp
from conventions.core.errors import PayloadError
from tests.workers import messages

UNKNOWN = "nobody.knows"


class Pay(ImmediateTask):
    """Take one number."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None: ...


class Copy(ImmediateTask):
    """Take anything."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: int = 0) -> int:
        return number


def _plain(number: int = 0) -> int:
    """A function."""
    return number


class Base(celery.Task):
    """A base of functions that does not know of ours."""

    abstract = True


def _based(number: int = 0) -> int:
    """A function with a base of its own."""
    return number


FUNCTIONS = SimpleNamespace(  # pytest would ask each name of this module what it is, which makes the task, without an application
    plain=shared_task(name="test_by_name.plain")(_plain),
    based=shared_task(name="test_by_name.based", base=Base)(_based),
)


WAYS: dict[str, Callable[..., Any]] = {
    "send_task of ours": lambda app, **options: app.send_task(Pay.name, (1,), **options),
    "send_task of a name": lambda app, **options: app.send_task(UNKNOWN, (1,), **options),
    "send_task of a function": lambda app, **options: app.send_task(FUNCTIONS.plain.name, (1,), **options),
    "a function": lambda app, **options: FUNCTIONS.plain.apply_async((1,), **options),
    "a function with a base of its own": lambda app, **options: FUNCTIONS.based.apply_async((1,), **options),
    "a signature of ours": lambda app, **options: signature(Pay.name, (1,), app=app).set(**options).delay(),
    "a signature of a name": lambda app, **options: signature(UNKNOWN, (1,), app=app).set(**options).delay(),
    "a signature of a function": lambda app, **options: FUNCTIONS.plain.s(1).set(**options).delay(),
    "link": lambda app, **options: FUNCTIONS.plain.apply_async(link=signature(UNKNOWN, app=app).set(**options)),
    "link of a name": lambda app, **options: app.send_task(UNKNOWN, link=FUNCTIONS.plain.s(1).set(**options)),
    "a later step": lambda app, **options: chain(FUNCTIONS.plain.s(1), signature(UNKNOWN, app=app).set(**options)).delay(),
    "a later step in a group": lambda app, **options: chain(
        FUNCTIONS.plain.s(1), group(FUNCTIONS.plain.s(), Pay.s().set(**options))
    ).delay(),
    "a chord's body": lambda app, **options: chord([Copy.s(1), Copy.s(2)], FUNCTIONS.plain.s().set(**options)).delay(),
    "Celery's own tasks": lambda app, **options: app.tasks["celery.accumulate"].apply_async((1,), **options),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_header_of_ours_is_refused_whatever_way_it_goes(app: ConventionsApp, way: str) -> None:
    """Nobody names an actor, or a key, by a header."""
    for headers in ({"x_actor": "ceo"}, {"x_key": "k"}, {"x_generation": 1}, {"headers": {"X_Actor": "ceo"}}):
        with pytest.raises(TypeError, match="is the platform's own, and no caller may give it"):
            WAYS[way](app, headers=headers)
        assert messages(app) == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"countdown": "5"}, "countdown is a number of seconds, not '5'"),
    ({"expires": math.inf}, "expires is a number of seconds, or a moment, not inf"),
    ({"shadow": 7}, "shadow is text, not int"),
    ({"link": {"task": "x"}}, "args of a signature is a list"),
    ({"compression": "gzip"}, "compressed messages are refused"),
    ({"headers": {"a": math.nan}}, "headers cannot be written as JSON"),
]


@pytest.mark.parametrize(("options", "says"), WRONG)
@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_option_is_refused_whatever_way_it_goes(
    app: ConventionsApp, way: str, options: dict[str, Any], says: str
) -> None:
    """Before anything is sent."""
    with pytest.raises((TypeError, ValueError), match=says):
        WAYS[way](app, **options)
    assert messages(app) == []


ALSO_WRONG: list[tuple[dict[str, Any], str]] = [
    ({"priority": 5}, "write one of Priority.LOW"),
    ({"countdown": 10**8}, "is beyond max_delay"),
    ({"eta": datetime.now(UTC) + timedelta(days=9000)}, "is beyond max_delay"),
    ({"countdwon": 5}, "there is no option countdwon; write countdown"),
    ({"retry_policy": {}}, "retry_policy is declared on the task class"),
    ({"time_limit": 1, "soft_time_limit": 2}, "is below soft_time_limit"),
    ({"task_type": Pay}, "task_type is what Celery says to itself"),
    ({"connection": 5}, "connection is a connection of kombu"),
    ({"task_id": "x" * 256}, "task_id has 256 characters"),
    ({"task_id": ""}, "task_id is empty"),
    ({"idempotency_key": 7}, "idempotency_key is text"),
    ({"actor": "a\0"}, "actor holds the character NUL"),
    ({"planned_at": "noon"}, "planned_at is a moment"),
    ({"kwargs": {"number": object()}}, "number|cannot be written as JSON"),
    ({"kwargs": {"number": math.nan}}, "number|cannot be written as JSON"),
    ({"kwargs": {"number": "\ud800"}}, "number"),
    ({"kwargs": {"number": "x" * 200_000}}, "number|bytes, the limit is"),
    ({"kwargs": {5: 1}}, "argument"),
    ({"args": 5}, "args is a list and kwargs a mapping of run's arguments, not int"),
    ({"args": "5"}, "args is a list and kwargs a mapping of run's arguments, not str"),
]


@pytest.mark.parametrize(("options", "says"), ALSO_WRONG)
@pytest.mark.parametrize("name", [Pay.name, UNKNOWN])
def test_a_name_is_checked_like_a_class(app: ConventionsApp, name: str, options: dict[str, Any], says: str) -> None:
    """Of a task that is not known here what can be."""
    with pytest.raises((TypeError, ValueError), match=says):
        app.send_task(name, **({"kwargs": {"number": 1}} | options))
    assert messages(app) == []


@pytest.mark.parametrize("name", [5, None, "", "a\0", "x" * 256, "\ud800"])
def test_what_is_no_name_is_not_sent(app: ConventionsApp, name: Any) -> None:
    """No worker would take it."""
    with pytest.raises((TypeError, ValueError), match="send_task: the name of "):
        app.send_task(name)
    assert messages(app) == []


def test_a_task_of_ours_that_is_sent_by_its_name_is_the_same_message(app: ConventionsApp) -> None:
    """Key, fingerprint and actor are those of a send by its class; its arguments must fit."""
    with acting_as("u-42"):
        Pay.apply_async((7,), priority=Priority.HIGH, headers={"x_request_id": "r"})
        app.send_task(Pay.name, (7,), priority=Priority.HIGH, headers={"x_request_id": "r"})
    first, second = messages(app)
    own = {"id", "root_id", "x_enqueued_at", "x_conventions_signature"}
    assert {name: value for name, value in first.headers.items() if name not in own} == {
        name: value for name, value in second.headers.items() if name not in own
    }
    assert (first.arguments, first.priority) == (second.arguments, second.priority) == ({"number": 7}, Priority.HIGH)
    with pytest.raises(PayloadError, match="number"):
        app.send_task(Pay.name, ("seven",))
    with pytest.raises(TypeError, match="number"):
        app.send_task(Pay.name)
    assert len(messages(app)) == 2


@pytest.mark.parametrize("way", WAYS)
def test_whoever_acts_is_the_actor(app: ConventionsApp, way: str) -> None:
    """Of every message, with the headers of others."""
    with acting_as("u-42"):
        WAYS[way](app, headers={"x_request_id": "r"})
    for sent in messages(app):
        assert sent.headers["x_actor"] == "u-42"
        assert sent.headers["x_enqueued_at"]
    if not way.startswith(("link", "a later", "a chord")):
        assert [sent.headers["x_request_id"] for sent in messages(app)] == ["r"]


def test_a_name_takes_an_actor_a_key_and_a_slot(app: ConventionsApp) -> None:
    """As the class does; where the task is not known, its worker makes the rest."""
    slot = datetime(2026, 1, 31, 9, tzinfo=UTC)
    for name in (Pay.name, UNKNOWN):
        app.send_task(
            name, kwargs={"number": 1}, actor="u-7", idempotency_key="k", planned_at=slot, priority=Priority.LOW
        )
    for sent in messages(app):
        assert (sent.headers["x_actor"], sent.headers["x_key"]) == ("u-7", "k")
        assert sent.headers["x_planned_at"] == slot.isoformat()


def test_celerys_own_arguments_of_send_task(app: ConventionsApp) -> None:
    """Also by their place; what they are is what they were."""
    due = datetime.now(UTC) + timedelta(hours=1)
    app.send_task(UNKNOWN, (1,), {"a": datetime(2026, 1, 31, tzinfo=UTC)}, None, due, "my-id", queue="mine")
    (sent,) = messages(app)
    assert (sent.id, sent.headers["task"], datetime.fromisoformat(sent.headers["eta"])) == ("my-id", UNKNOWN, due)


def test_no_argument_of_send_task_is_dropped(app: ConventionsApp) -> None:
    """All that Celery takes by place counts by place; what is too much, or given twice, is refused."""
    by_place = (None, None, "my-id", None, None, None, None, 3600, None, FUNCTIONS.plain.s(2))
    for name in (Pay.name, UNKNOWN, FUNCTIONS.plain.name):
        app.send_task(name, (1,), {}, *by_place)
    for sent in messages(app):
        left = datetime.fromisoformat(sent.headers["expires"]) - datetime.now(UTC)
        assert timedelta(minutes=50) < left < timedelta(minutes=61)
        assert (sent.id, len(sent.following["callbacks"])) == ("my-id", 1)
    assert len(messages(app)) == 3
    with pytest.raises(TypeError, match=r"send_task: it takes [0-9]+ arguments by position, not 41; name the others"):
        app.send_task(UNKNOWN, *[None] * 40)
    with pytest.raises(TypeError, match="send_task: task_id is given twice, by position and by name"):
        app.send_task(UNKNOWN, (1,), {}, None, None, "a", task_id="b")
    assert len(messages(app)) == 3


def test_a_function_keeps_what_is_its_own(app: ConventionsApp) -> None:
    """A project that has them already goes on: numbers as priorities, long delays, options of kombu."""
    FUNCTIONS.plain.apply_async((1,), priority=5, countdown=10**8, retry_policy={"max_retries": 1})
    FUNCTIONS.based.apply_async((1,), priority=5)
    assert sorted(sent.priority for sent in messages(app)) == [5, 5]


def test_nobody_forges_by_an_id_that_was_checked(app: ConventionsApp) -> None:
    """What runs within a send, as a receiver of a signal of Celery's, is checked for itself."""
    refused: list[str] = []

    def receive(**_: Any) -> None:
        try:
            app.send_task(UNKNOWN, headers={"x_actor": "ceo"})
        except TypeError as error:
            refused.append(str(error))

    celery.signals.before_task_publish.connect(receive)
    try:
        Pay.apply_async((1,))
        FUNCTIONS.plain.apply_async((1,))
    finally:
        celery.signals.before_task_publish.disconnect(receive)
    assert len(refused) == 2
    assert len(messages(app)) == 2


@contextmanager
def running(app: ConventionsApp, name: str, headers: Mapping[str, str]) -> Iterator[Any]:
    """A message of a function runs here, as in a worker."""
    task = app.tasks[name]
    request = {"id": "i", "task": name, "args": [1], "kwargs": {}, "x_token": "t", **headers}
    task.push_request(**vars(Context(request, called_directly=False)))
    celery._state._task_stack.push(task)
    try:
        yield task
    finally:
        celery._state._task_stack.pop()
        task.pop_request()


OF_A_MESSAGE = {"x_actor": "u-42", "x_enqueued_at": "2026-01-31T00:00:00+00:00", "x_request_id": "r"}


@pytest.mark.parametrize("name", ["test_by_name.plain", "test_by_name.based"])
def test_a_retry_of_a_function_goes_on_with_its_headers(app: ConventionsApp, name: str) -> None:
    """Those of ours that its message has, and those of others; another header of ours it cannot take on."""
    with (
        running(app, name, OF_A_MESSAGE | {"x_conventions_signature": "of the message before"}) as task,
        pytest.raises(celery.exceptions.Retry),
    ):
        task.retry(countdown=1, headers={"x_actor": "ceo", "x_request_id": "r", "x_key": "k"})
    (sent,) = messages(app)
    assert (sent.id, sent.headers["retries"]) == ("i", 1)
    assert sent.headers.pop("x_conventions_signature") != "of the message before"
    assert sent.headers.pop("x_conventions_signed") == ["x_request_id"]
    assert {name: value for name, value in sent.headers.items() if name.startswith("x_")} == OF_A_MESSAGE


def test_what_takes_the_place_of_a_job_is_another_message(app: ConventionsApp) -> None:
    """It has the id, and nothing that belongs to the first one alone."""
    with running(app, FUNCTIONS.plain.name, OF_A_MESSAGE | {"x_key": "k", "x_fingerprint": "f"}) as task:
        with pytest.raises(celery.exceptions.Ignore):
            task.replace(FUNCTIONS.based.s(1))
        with pytest.raises(TypeError, match="is the platform's own"):
            FUNCTIONS.based.apply_async((1,), task_id="i", headers={"x_actor": "ceo"})
    (sent,) = messages(app)
    assert (sent.id, sent.headers["task"], sent.headers["x_actor"]) == ("i", FUNCTIONS.based.name, "u-42")
    assert {"x_key", "x_fingerprint", "x_request_id"}.isdisjoint(sent.headers)
