"""What a send returns whose result nobody keeps: Celery's result, which prepares for those who wait only when somebody does."""

import gc
import pickle
from copy import copy
from typing import Any

import pytest
from celery import signals
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.records.journal import Event
from conventions.sending.ignored_result import IgnoredResult
from tests.support import patient, wait_until


class Plain(ImmediateTask):
    """A task whose result nobody keeps."""

    not_idempotent = "it does nothing"

    def run(self) -> None:
        """Do nothing."""


@pytest.fixture
def sent(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the short way of sending returns."""
    for signal in (signals.before_task_publish, signals.after_task_publish, signals.task_sent):
        monkeypatch.setattr(signal, "receivers", [])  # of other tests, for which Celery would make each message
    Plain.delay()
    found: Any = Plain.delay()
    assert isinstance(found, IgnoredResult)
    assert isinstance(found, app.AsyncResult)
    return found


def subscribed(app: ConventionsApp) -> set[Any]:
    """The results that this process listens for."""
    found: set[Any] = app.backend.result_consumer.subscribed_to
    return found


def test_it_is_as_celerys(app: ConventionsApp, sent: Any) -> None:
    """But for what waiting needs: Celery's own `__init__` is not called."""
    celerys: Any = Plain.apply_async(expires=60)  # which Celery sends
    assert type(celerys) is app.AsyncResult
    expected = vars(celerys) | {"id": sent.id, "app": app}
    del expected["on_ready"]
    assert vars(sent) | {"app": sent.app} == expected
    assert sent == AsyncResult(sent.id, app=app)
    assert repr(sent) == f"<AsyncResult: {sent.id}>"
    again = pickle.loads(pickle.dumps(sent))
    assert (again.id, type(again)) == (sent.id, app.AsyncResult)
    assert (copy(sent).id, copy(sent).ignored) == (sent.id, False)


def test_it_asks_the_backend_of_its_task(app: ConventionsApp, sent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Celery's does."""
    backend = app._get_backend()  # type: ignore[attr-defined]  # Celery's
    monkeypatch.setattr(Plain.registered, "_backend", backend)
    found: Any = Plain.delay()
    assert isinstance(found, IgnoredResult)
    assert (found.backend is backend, sent.backend is app.backend) == (True, True)


def test_get_waits_for_the_job(app: ConventionsApp, sent: Any) -> None:
    """Not for a result that is kept: its end is known without one."""
    assert not subscribed(app)
    with pytest.raises(CeleryTimeout):
        sent.get(timeout=0.2)
    assert sent.state == "PENDING"
    app.journal.append([Event(sent.id, "succeeded", task=Plain.name)])
    app.store.redis.delete(app.store.key("message", sent.id))
    assert (sent.state, sent.get(timeout=patient(10))) == ("SUCCESS", None)
    slow: Any = Plain.apply_async(expires=60)  # which Celery sends
    with pytest.raises(CeleryTimeout):
        slow.get(timeout=0.2)


def test_who_wants_to_be_told_is_told(app: ConventionsApp, sent: Any) -> None:
    """Where there is a result all the same, as of a failure that is stored although results are ignored."""
    told: list[Any] = []
    sent.then(told.append)
    message = app.backend.encode(
        {"task_id": sent.id, "status": "SUCCESS", "result": 7, "traceback": None, "children": []}
    )
    app.store.redis.publish(app.backend.get_key_for_task(sent.id), message)
    wait_until(lambda: app.backend.result_consumer.drain_events(timeout=0.1) or told == [sent], 5, "it is told")
    assert sent.result == 7


def test_one_that_is_dropped_leaves_nothing(app: ConventionsApp, sent: Any) -> None:
    """Nor does one that somebody has waited for, and dropped."""
    sent.then(print, weak=True)
    other: Any = Plain.delay()
    assert len(subscribed(app)) == 1
    other.__del__()
    assert len(subscribed(app)) == 1
    sent.__del__()
    gc.collect()
    assert not subscribed(app)
