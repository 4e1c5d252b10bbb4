"""`self.request` of a job of a group is Celery's own, as soon as somebody asks for more than is known."""

import copy
import json
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from celery.app.task import Context

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.header_names import KEY
from conventions.fast_lane.lazy_request import LateContext
from conventions.fast_lane.run_group import run_group
from tests.claiming import handed_over


class Asking(ImmediateTask):
    """Ask for what the test wants to know."""

    not_idempotent = "nothing happens"
    asks: ClassVar[Callable[[Any], Any]]
    heard: ClassVar[list[Any]] = []

    def run(self, number: int) -> None:
        assert number == 7
        self.heard.append(type(self).asks(self))


def run_one(app: ConventionsApp, **options: Any) -> dict[str, Any]:
    """Run one job as a group does, as its message came; returns the message."""
    Asking.heard.clear()
    Asking.apply_async(kwargs={"number": 7}, **options)
    (delivery,) = app.broker.reserve([Asking.queue_name], 1)
    handed: Any = handed_over(delivery)
    (ended,) = run_group([[handed]], "worker@host")
    assert ended is not None
    assert ended[0] == "done", ended
    found: dict[str, Any] = json.loads(delivery.payload)
    return found


@pytest.fixture
def asks(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], Any]], None]:
    """What the job does."""

    def ask(what: Callable[[Any], Any]) -> None:
        monkeypatch.setattr(Asking, "asks", staticmethod(what), raising=False)

    return ask


def test_a_job_that_asks_nothing_reads_nothing(
    app: ConventionsApp, asks: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it has of its message besides: its id, its actor, its key, which attempt this is; and what the log says of it."""
    caplog.set_level(logging.INFO, logger="celery.app.trace")
    monkeypatch.setattr("conventions.fast_lane.lazy_request.with_delivery", lambda *_: pytest.fail("it was read"))
    asks(lambda task: (task.request.id, task.actor, task.idempotency_key, task.attempt, task.planned_at))
    message = run_one(app)
    id_ = message["headers"]["id"]
    assert Asking.heard == [(id_, "system", id_, 1, None)]
    (line,) = (vars(one)["data"] for one in caplog.records if "succeeded" in one.getMessage())
    assert [line[name] for name in ("id", "args", "kwargs")] == [
        id_, message["headers"]["argsrepr"], message["headers"]["kwargsrepr"]
    ]  # fmt: skip


QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "attribute": lambda request: request.origin,
    "default": lambda request: request.retries,
    "method": lambda request: request.get("root_id"),
    "vars": vars,
    "repr": repr,
    "nothing": lambda request: getattr(request, "nonsense", None),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_it_is_celerys_from_the_first_question(question: str, app: ConventionsApp, asks: Any) -> None:
    """With what was set before; the answer is Celery's, too."""

    def ask(task: Any) -> Any:
        request = task.request
        request.mine = 1
        assert isinstance(request, LateContext)
        answer = QUESTIONS[question](request)
        assert type(request) is Context
        assert request.mine == 1
        assert answer == QUESTIONS[question](request)
        assert request.job is task.job
        assert not hasattr(request, "_late")
        return request.kwargs, request.headers[KEY], request.correlation_id, request.called_directly, request.is_eager

    asks(ask)
    headers = run_one(app)["headers"]
    assert Asking.heard == [({"number": 7}, headers["x_key"], headers["id"], False, False)]


def test_headers_of_others_are_there(app: ConventionsApp, asks: Any) -> None:
    """As in Celery, also where they begin as ours do."""
    others = {"x_request_id": "r-1", "x-b3-traceid": "80f198ee"}
    asks(lambda task: {name: task.request.headers.get(name) for name in others})
    run_one(app, headers=others)
    assert Asking.heard == [others]


def test_a_copy_is_one_of_its_own(app: ConventionsApp, asks: Any) -> None:
    """And knows as much."""

    def ask(task: Any) -> Any:
        other = copy.copy(task.request)
        other.mine = 1
        return other.root_id, other.mine, hasattr(task.request, "mine"), task.request.root_id

    asks(ask)
    id_ = run_one(app)["headers"]["id"]
    assert Asking.heard == [(id_, 1, False, id_)]


@pytest.mark.thorough
def test_another_thread_may_read_it_meanwhile(app: ConventionsApp, asks: Any) -> None:
    """As the one that renews leases does; nothing that was there is missing at any moment."""
    faults: list[Exception] = []

    def read(request: Any, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                assert (request.last_progress, request.called_directly) == (1.0, False)
                assert request.root_id
            except Exception as error:  # noqa: BLE001  # whatever it is
                faults.append(error)
                return

    def ask(task: Any) -> None:
        late = task.request._late
        for _ in range(200):
            request, ended = late.context(), threading.Event()
            request.last_progress = 1.0
            threads = [threading.Thread(target=read, args=(request, ended)) for _ in range(3)]
            for thread in threads:
                thread.start()
            assert request.origin
            ended.set()
            for thread in threads:
                thread.join()

    asks(ask)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        run_one(app)
    finally:
        sys.setswitchinterval(interval)
    assert faults == []
