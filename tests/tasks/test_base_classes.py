"""The class as the thing that is sent: every path, every refusal, and what `run` sees."""

import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from celery import chain, group

from conventions import (
    EVERY_ARGUMENT,
    BusinessError,
    ConventionTask,
    ImmediateTask,
    LongRunningTask,
    PayloadError,
    Priority,
    RetryPolicy,
    ScheduledTask,
    acting_as,
)
from conventions.app import ConventionsApp
from conventions.tasks.job_classes import long_queues
from tests.workers import messages


class Mail(ImmediateTask):
    """Send one e-mail."""

    queue_name = "mail"
    idempotent_on = ("user_id", "day")
    ignore_result = False

    def run(self, user_id: int, day: date, note: str = "") -> str:
        return f"{user_id} {day:%d.%m.} {note}"


class Number(ImmediateTask):
    """Take one number."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: int) -> int:
        return number


class Measure(ImmediateTask):
    """Take a float and anything JSON can hold."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, value: float, extra: Any = None) -> None: ...


class Night(ScheduledTask):
    """Do something at night."""

    def run(self) -> None: ...


class Long(LongRunningTask):
    """Do something for long."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None: ...


class Archive(Long):
    """The same, in a queue of its own."""

    idempotent_on = EVERY_ARGUMENT
    queue_name = "archive"


class Hasty(Long):
    """The same, among others."""

    idempotent_on = EVERY_ARGUMENT
    queue_name = "immediate"


class Flaky(ImmediateTask):
    """Succeed at the given attempt."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(attempts=3)

    def run(self, at: int) -> int:
        if self.attempt < at:
            raise RuntimeError("not yet")
        return self.attempt


class Refuse(ImmediateTask):
    """Fail for a business reason."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        raise BusinessError(f"no {number}")


class Context(ImmediateTask):
    """Say what it knows of its message."""

    idempotent_on = ("number",)

    def run(self, number: int) -> list[Any]:
        return [self.actor, self.attempt, self.idempotency_key, self.planned_at, number]


DAY = date(2026, 1, 31)


# What is sent.


def test_delay_sends_one_message(app: ConventionsApp) -> None:
    """Its id is the one that the result has; its payload is JSON by name with the defaults."""
    result = Mail.delay(7, DAY)
    (sent,) = messages(app)
    assert (sent.id, sent.task, sent.queue) == (result.id, Mail.name, "mail")
    assert sent.arguments == {"user_id": 7, "day": "2026-01-31", "note": ""}


@pytest.mark.parametrize(
    "send",
    [
        lambda: Mail.delay(7, DAY),
        lambda: Mail.delay(user_id=7, day=DAY),
        lambda: Mail.delay(7, day="2026-01-31", note=""),  # type: ignore[arg-type]
        lambda: Mail.apply_async((7, DAY)),
        lambda: Mail.apply_async((7,), {"day": DAY}),
        lambda: Mail.apply_async(kwargs={"day": DAY, "user_id": 7, "note": ""}),
        lambda: Mail.s(7, DAY).delay(),
        lambda: Mail.s(7, day=DAY).apply_async(),
        lambda: Mail.si(user_id=7, day=DAY).delay(),
        lambda: Mail.signature((7, DAY)).apply_async(),
        lambda: Mail.signature(kwargs={"user_id": 7, "day": DAY}).delay(),
        lambda: Mail.s(day=DAY).apply_async((7,)),
        lambda: Mail.enqueue_many([{"user_id": 7, "day": DAY}]),
        lambda: group([Mail.s(7, DAY)]).apply_async(),
        lambda: chain(Mail.si(7, DAY), Number.si(1)).apply_async(),
        lambda: Mail.registered.delay(7, DAY),
    ],
)
def test_every_path_sends_the_same(app: ConventionsApp, send: Callable[[], Any]) -> None:
    """Positional or named, by whatever method: one payload, one key, one fingerprint."""
    send()
    (sent,) = messages(app)
    assert sent.arguments == {"user_id": 7, "day": "2026-01-31", "note": ""}
    assert sent.queue == "mail"
    Mail.delay(7, DAY)
    first, second = messages(app)
    for header in ("x_key", "x_fingerprint"):
        assert first.headers[header] == second.headers[header]


def test_the_key_is_made_of_the_declared_arguments(app: ConventionsApp) -> None:
    """The fingerprint is made of all of them."""
    Mail.delay(7, DAY, "a")
    Mail.delay(7, DAY, "b")
    first, second = messages(app)
    assert first.headers["x_key"] == second.headers["x_key"]
    assert first.headers["x_fingerprint"] != second.headers["x_fingerprint"]


def test_each_class_of_job_has_its_queue(app: ConventionsApp) -> None:
    """And `queue_name` on the class wins."""
    for task, arguments in ((Mail, (7, DAY)), (Number, (1,)), (Night, ()), (Long, (1,))):
        task.apply_async(arguments)
    assert {sent.task: sent.queue for sent in messages(app)} == {
        Mail.name: "mail",
        Number.name: "immediate",
        Night.name: "scheduled",
        Long.name: "long",
    }


def test_which_queues_are_of_long_jobs(app: ConventionsApp) -> None:
    """`long`, and those that long-running tasks have of their own; what is shared with the other classes is not."""
    found = long_queues(app)
    assert found >= {Long.queue_name, Archive.queue_name}
    assert not found & {Mail.queue_name, Hasty.queue_name, Night.queue_name}


@pytest.mark.parametrize("path", ["map", "starmap", "chunks"])
def test_items_go_by_the_queue_of_their_task(app: ConventionsApp, path: str) -> None:
    """A hundred long items must not block the immediate queue."""
    if path == "map":
        Long.map([1, 2]).apply_async()
    elif path == "starmap":
        Long.starmap([(1,), (2,)]).apply_async()
    else:
        Long.chunks([(1,), (2,)], 1).apply_async()
    assert {sent.queue for sent in messages(app)} == {"long"}


def test_many_messages_are_sent_at_once(app: ConventionsApp) -> None:
    """`enqueue_many` returns the ids in order."""
    ids = Number.enqueue_many([{"number": number} for number in range(5)])
    numbers = {sent.id: sent.arguments["number"] for sent in messages(app)}
    assert [numbers[id_] for id_ in ids] == [0, 1, 2, 3, 4]


def test_enqueue_many_takes_an_iterator_and_options(app: ConventionsApp) -> None:
    """Options are those of `apply_async`, for each message."""
    Number.enqueue_many(({"number": number} for number in range(2)), priority=Priority.HIGH, actor="u-1")
    assert {(sent.priority, sent.headers["x_actor"]) for sent in messages(app)} == {(Priority.HIGH, "u-1")}


def test_the_class_and_the_task_are_sent_alike(app: ConventionsApp) -> None:
    """The registered task is what Celery works with; both have the same methods."""
    assert app.tasks[Mail.name].delay(7, DAY).id != Mail.delay(7, DAY).id
    assert len(messages(app)) == 2
    assert isinstance(app.tasks[Mail.name], Mail)


def test_a_signature_survives_json_and_pickle(app: ConventionsApp) -> None:
    """A chain travels within messages."""
    signature = Number.s(3)
    assert pickle.loads(pickle.dumps(signature)) == signature
    assert signature.task == Number.name


def test_the_methods_keep_their_documentation() -> None:
    """`help(SendEmail.delay)` says something."""
    for method in ("delay", "apply_async", "s", "si", "map", "starmap", "chunks", "enqueue_many", "cancel"):
        assert getattr(Mail, method).__doc__, method


# What is refused, on every path, with nothing sent.

PATHS: dict[str, Callable[..., Any]] = {
    "delay": Number.delay,
    "apply_async": lambda *args, **kwargs: Number.apply_async(args, kwargs),
    "registered": lambda *args, **kwargs: Number.registered.delay(*args, **kwargs),  # noqa: PLW0108  # there is no application yet
    "s": lambda *args, **kwargs: Number.s(*args, **kwargs).apply_async(),
    "s()": lambda *args, **kwargs: Number.s(*args, **kwargs)(),
    "si": lambda *args, **kwargs: Number.si(*args, **kwargs).delay(),
    "signature": lambda *args, **kwargs: Number.signature(args, kwargs).apply_async(),
    "chain": lambda *args, **kwargs: chain(Number.s(*args, **kwargs), Number.si(1)).apply_async(),
    "group": lambda *args, **kwargs: group([Number.s(*args, **kwargs)]).apply_async(),
    "called": lambda *args, **kwargs: Number.registered(*args, **kwargs),  # noqa: PLW0108  # there is no application yet
}
ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({}, TypeError, "missing a required argument: 'number'"),
    ({"number": 1, "more": 2}, TypeError, "got an unexpected keyword argument 'more'"),
    ({"number": "7"}, PayloadError, "argument 'number': Input should be a valid integer"),
    ({"number": True}, PayloadError, "argument 'number': Input should be a valid integer"),
    ({"number": 7.0}, PayloadError, "argument 'number': Input should be a valid integer"),
    ({"number": None}, PayloadError, "argument 'number': Input should be a valid integer"),
    ({"number": object()}, PayloadError, "argument"),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("arguments", "error", "message"), ARGUMENTS)
def test_arguments_that_do_not_fit_are_refused(
    app: ConventionsApp, path: str, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The error is at the call, names the task and the argument, and nothing is sent."""
    with pytest.raises(error, match=message) as found:
        PATHS[path](**arguments)
    assert "Number: " in str(found.value)
    assert messages(app) == []


def test_too_many_positional_arguments(app: ConventionsApp) -> None:
    """The message shows what `run` takes."""
    with pytest.raises(TypeError, match=r"Number: too many positional arguments; its arguments are \(number: int\)"):
        Number.delay(1, 2)  # type: ignore[call-arg]
    assert messages(app) == []


@pytest.mark.parametrize("items", [[1, "2"], [1, True], [1, None], [object()]])
def test_map_checks_each_item(app: ConventionsApp, items: list[Any]) -> None:
    """It is one message, and a faulty one is not made."""
    with pytest.raises(PayloadError, match="argument 'number'"):
        Number.map(items)
    assert messages(app) == []


@pytest.mark.parametrize(("items", "error"), [([(1,), ("2",)], PayloadError), ([(1, 2)], TypeError), ([()], TypeError)])
def test_starmap_and_chunks_check_each_item(app: ConventionsApp, items: list[Any], error: type[Exception]) -> None:
    """Tuples of arguments are checked as such."""
    with pytest.raises(error):
        Number.starmap(items)
    with pytest.raises(error):
        Number.chunks(items, 10)
    assert messages(app) == []


def test_enqueue_many_names_every_faulty_mapping(app: ConventionsApp) -> None:
    """All faults at once, by index; the good ones are not sent either."""
    with pytest.raises(PayloadError) as found:
        Number.enqueue_many([{"number": 1}, {"number": "2"}, {}, {"number": 3, "more": 4}])
    first, second, third = str(found.value).splitlines()
    assert first.startswith("[1] Number: argument 'number'")
    assert second.startswith("[2] Number: missing a required argument")
    assert third.startswith("[3] Number: got an unexpected keyword argument 'more'")
    assert messages(app) == []


def test_enqueue_many_names_a_mapping_that_is_too_large(app: ConventionsApp) -> None:
    """Nothing of the list is sent, not even what comes before it."""
    with pytest.raises(PayloadError, match=r"\[1\].*pass its id"):
        Mail.enqueue_many([{"user_id": 1, "day": DAY}, {"user_id": 2, "day": DAY, "note": "x" * 70_000}])
    assert messages(app) == []


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {"a": float("nan")}, object(), {object(): 1}, lambda: 1, b"\xff"]
)
def test_what_json_cannot_hold_is_refused(app: ConventionsApp, value: Any) -> None:
    """NaN is no JSON, although Python's own encoder writes it."""
    with pytest.raises(PayloadError, match="Measure: "):
        Measure.delay(1.5, value)
    assert messages(app) == []


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_float_must_be_a_number(app: ConventionsApp, value: float) -> None:
    """The annotation allows it, JSON does not."""
    with pytest.raises(PayloadError, match="Measure: "):
        Measure.delay(value)
    assert messages(app) == []


@pytest.mark.parametrize(
    "send",
    [
        lambda note: Mail.delay(1, DAY, note),
        lambda note: Mail.apply_async((1, DAY, note)),
        lambda note: Mail.s(1, DAY, note).apply_async(),
        lambda note: Mail.enqueue_many([{"user_id": 1, "day": DAY, "note": note}]),
        lambda note: Mail.starmap([(1, DAY, note)]).apply_async(),
        lambda note: Mail.chunks([(1, DAY, note)], 1).apply_async(),
    ],
)
def test_a_large_payload_is_refused(app: ConventionsApp, send: Callable[[str], Any]) -> None:
    """Above 64 KiB the message says to pass an id; a payload just below passes."""
    with pytest.raises(PayloadError, match="store the data, pass its id, and look it up in run"):
        send("x" * 65_536)
    assert messages(app) == []
    send("x" * 65_000)
    assert len(messages(app)) == 1


def test_a_map_is_a_message_for_each_item(app: ConventionsApp) -> None:
    """Each is a job like any other (R5)."""
    Number.map(range(3)).apply_async()
    assert sorted(sent.arguments["number"] for sent in messages(app)) == [0, 1, 2]


def test_the_size_limit_is_a_setting(app: ConventionsApp) -> None:
    """It counts bytes of JSON, not characters."""
    app.settings.payload_limit = 100
    with pytest.raises(PayloadError, match="the limit is 100"):
        Mail.delay(1, DAY, "あ" * 30)
    Mail.delay(1, DAY, "a" * 30)
    assert len(messages(app)) == 1


def test_an_abstract_class_cannot_be_sent(app: ConventionsApp) -> None:
    """The bases define no `run`."""
    for base in (ConventionTask, ImmediateTask, ScheduledTask, LongRunningTask):
        with pytest.raises(TypeError, match="is abstract: it defines no run"):
            base.delay()
    assert messages(app) == []


# What run sees.


def test_apply_runs_here(app: ConventionsApp) -> None:
    """Arguments are checked and typed, and the result is there."""
    assert Mail.apply((7, DAY), {"note": "hi"}).get() == "7 31.01. hi"
    assert Mail.apply(kwargs={"user_id": 7, "day": "2026-01-31"}).get() == "7 31.01. "


def test_apply_retries_without_waiting(app: ConventionsApp) -> None:
    """By the policy: three attempts, then the last error."""
    assert Flaky.apply((3,)).get() == 3
    assert isinstance(Flaky.apply((4,)).result, RuntimeError)


def test_apply_of_a_business_error(app: ConventionsApp) -> None:
    """It is not retried, and no letter is written."""
    outcome = Refuse.apply((3,))
    assert outcome.state == "FAILURE"
    assert isinstance(outcome.result, BusinessError)


def test_apply_refuses_arguments_that_do_not_fit(app: ConventionsApp) -> None:
    """As a worker does with a message that does not fit any more."""
    assert isinstance(Number.apply(("7",)).result, PayloadError)


def test_a_direct_call_is_the_body(app: ConventionsApp) -> None:
    """With its arguments checked, and no message around it."""
    assert Mail.registered(7, DAY) == "7 31.01. "
    assert Mail.registered(7, "2026-01-31", note="x") == "7 31.01. x"


def test_what_run_knows(app: ConventionsApp) -> None:
    """The actor, the attempt, the key and the slot of its message."""
    slot = datetime(2026, 1, 31, 9, tzinfo=UTC)
    actor, attempt, key, planned, number = Context.apply((7,)).get()
    assert (actor, attempt, planned, number) == ("system", 1, None, 7)
    assert len(key) == 32
    with acting_as("u-1"):
        assert Context.registered(7)[1:3] == [1, key]
    Context.apply_async((7,), planned_at=slot)
    (sent,) = messages(app)
    assert sent.headers["x_planned_at"] == "2026-01-31T09:00:00+00:00"
    assert sent.headers["x_key"] != key, "the slot is part of the key"


def test_outside_of_run_there_is_no_message(app: ConventionsApp) -> None:
    """The error says why."""
    for attribute in ("actor", "attempt", "idempotency_key", "planned_at", "job"):
        with pytest.raises(RuntimeError, match="can only be read within run"):
            getattr(Context.registered, attribute)


@pytest.fixture
def no_application() -> Iterator[None]:
    """A process in which nobody called `create_app`."""
    from celery import Celery

    from tests.workers import forget_applications, remembering_current

    with remembering_current():
        forget_applications()
        bare = Celery("bare", broker="memory://")
        bare.set_current()
        bare.set_default()
        yield
        bare.close()


def test_sending_without_an_application_says_what_to_write(no_application: None) -> None:
    """A module that forgot to import its package's `__init__`."""
    with pytest.raises(RuntimeError, match=r'write app = create_app\("..."\)'):
        Number.delay(1)
