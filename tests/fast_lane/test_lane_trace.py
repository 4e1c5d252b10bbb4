"""A job of a group sees, and shows, what it does when Celery's own tracer runs it."""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from celery import current_task, signals
from celery.app import trace
from celery.app.trace import build_tracer
from celery.exceptions import Reject
from redis.exceptions import TimeoutError as RedisTimeout

from conventions import ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.broker.codec import read_message
from conventions.execution.log_redaction import make_safe
from conventions.fast_lane import short_request
from conventions.fast_lane.call_job import Ended, is_observed
from conventions.fast_lane.eligible import may_go_together
from conventions.fast_lane.run_group import run_group
from conventions.library_internals.billiard import error_of
from conventions.worker.request import Request
from tests.claiming import handed_over


class Telling(ImmediateTask):
    """Remember what it sees of its message."""

    idempotent_on = ("number",)
    retry_policy = RetryPolicy(attempts=1)
    seen: ClassVar[list[dict[str, Any]]] = []
    failures: ClassVar[list[str]] = []

    def run(self, number: int, how: str = "") -> dict[str, int]:
        self.seen.append(dict(vars(self.request)))
        assert current_task.request is self.request
        assert self.actor == "u-42"
        if how == "fails":
            self.request.noted = number
            raise ValueError(f"no {number}")
        return {"number": number}

    def on_failure(self, exc: BaseException, *_: Any) -> None:
        """Remember that."""
        self.failures.append(f"{exc}, as it noted: {self.request.noted}")


class Hooked(ImmediateTask):
    """Has a hook that Celery's tracer calls."""

    not_idempotent = "nothing happens"

    def run(self) -> None:
        """Do nothing."""

    def on_success(self, *_: Any) -> None:
        """Do nothing."""


def run_together(
    app: ConventionsApp, *calls: dict[str, Any], short: bool = False, **options: Any
) -> list[Ended | None]:
    """Send these, and run them as a group, in this process; `short`: handed over as they came."""
    for arguments in calls:
        Telling.apply_async(kwargs=arguments, actor="u-42", **options)
    task = app.tasks[Telling.name]
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        deliveries = app.broker.reserve([Telling.queue_name], len(calls))
        requests = [
            Request(channel.Message(read_message(one), channel=channel), app=app, task=task, hostname="worker@host")
            for one in deliveries
        ]
        assert all(may_go_together(request) for request in requests)
        handed: list[Any] = (
            [handed_over(one) for one in deliveries] if short else [short_request.handed_over(one) for one in requests]
        )
        return [None if one is None else Ended(*one) for one in run_group([handed], "worker@host")]


@contextmanager
def listening(signal: Any) -> Iterator[list[dict[str, Any]]]:
    """Somebody hears this signal."""
    heard: list[dict[str, Any]] = []

    def on_signal(**told: Any) -> None:
        heard.append(told)

    signal.connect(on_signal)
    try:
        yield heard
    finally:
        signal.disconnect(on_signal)


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    Telling.seen.clear()
    Telling.failures.clear()


OWN = ("id", "root_id", "correlation_id", "kwargs", "kwargsrepr", "x_key", "x_fingerprint", "x_token", "x_enqueued_at", "x_conventions_signature",
       "headers", "properties", "conventions_run_by", "job")  # fmt: skip  # of each message


@pytest.mark.parametrize("short", [True, False])
def test_a_job_sees_what_celerys_tracer_shows_it(app: ConventionsApp, short: bool) -> None:
    """The same attributes of its request, with the same values."""
    lean = run_together(app, {"number": 1}, short=short)
    with listening(signals.task_prerun) as heard:
        full = run_together(app, {"number": 2})
    assert len(heard) == 1
    mine, celerys = Telling.seen
    assert mine.keys() == celerys.keys()
    assert {name: mine[name] for name in mine if name not in OWN} == {
        name: celerys[name] for name in celerys if name not in OWN
    }
    assert mine["headers"].keys() == celerys["headers"].keys()
    assert [(one.how, one.value) for one in (*lean, *full) if one] == [
        ("done", "{'number': 1}"),
        ("done", "{'number': 2}"),
    ]


def test_a_failure_is_told_as_ever(app: ConventionsApp) -> None:
    """Once, to the task and to who listens; the job runs once, and those beside it have succeeded."""
    with listening(signals.task_failure) as heard:
        ended = run_together(app, {"number": 1}, {"number": 2, "how": "fails"}, {"number": 3})
    assert [one.how for one in ended if one] == ["done", "failed", "done"]
    assert Telling.failures == ["no 2, as it noted: 2"]
    assert [str(told["exception"]) for told in heard] == ["no 2"]
    assert len(Telling.seen) == 3


def test_a_death_that_is_not_on_the_disk_is_not_acknowledged(
    app: ConventionsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message comes again: the worker that recorded the death may have ended before it was sure of that."""
    fails = {"number": 1, "how": "fails"}
    run_together(app, fails, task_id="m1")

    def secure() -> None:
        raise RedisTimeout("not on the disk")

    monkeypatch.setattr(app.port, "secure", secure)
    (again,) = run_together(app, fails, task_id="m1")
    assert again
    refused = error_of(again.value)
    assert isinstance(refused, Reject)
    assert refused.requeue


def test_what_has_not_run_took_no_time(app: ConventionsApp) -> None:
    """A duplicate says nothing of how long jobs of its task take."""
    first, again = run_together(app, {"number": 1}, {"number": 1})
    assert first
    assert again
    assert (first.has_run, again.has_run) == (True, False)
    assert len(Telling.seen) == 1


@pytest.fixture
def _safe_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logs as a worker writes them, until the test ends."""
    factory = logging.getLogRecordFactory()
    for name in ("LOG_SUCCESS", "info"):
        monkeypatch.setattr(trace, name, getattr(trace, name))
    make_safe()
    yield
    logging.setLogRecordFactory(factory)


@pytest.mark.usefixtures("_safe_logs")
def test_a_success_is_logged_as_ever(app: ConventionsApp, caplog: pytest.LogCaptureFixture) -> None:
    """The same line, with the same fields for a formatter of JSON, and no word of the result."""
    with caplog.at_level(logging.INFO, logger="celery.app.trace"):
        run_together(app, {"number": 1})
        with listening(signals.task_postrun):
            run_together(app, {"number": 1 + 1})
    lean, full = (one for one in caplog.records if "succeeded" in one.getMessage())
    mine, celerys = vars(lean)["data"], vars(full)["data"]
    assert lean.msg == full.msg
    assert mine.keys() == celerys.keys()
    assert "return_value" not in celerys
    own = ("id", "runtime", "kwargs")
    assert [mine[name] for name in mine if name not in own] == [celerys[name] for name in celerys if name not in own]


@pytest.mark.parametrize("name", ["task_prerun", "task_postrun", "task_success"])
def test_who_listens_is_heard(app: ConventionsApp, name: str) -> None:
    """Then Celery's tracer does it all."""
    task = app.tasks[Telling.name]
    assert not is_observed(task)
    with listening(getattr(signals, name)):
        assert is_observed(task)


def test_hooks_and_tracers_of_others_are_heeded(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as those of a library that measures."""
    assert is_observed(app.tasks[Hooked.name])
    task = app.tasks[Telling.name]
    own = build_tracer(task.name, task, app.loader, "worker@host", app=app)
    monkeypatch.setattr(task, "__trace__", own)
    assert not is_observed(task)

    @functools.wraps(own)
    def measured(*arguments: Any, **options: Any) -> Any:
        return own(*arguments, **options)

    monkeypatch.setattr(task, "__trace__", measured)
    assert is_observed(task)
