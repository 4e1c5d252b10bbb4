"""Single sends that are stamped out of a message that Celery made: nobody can tell, and where one could, Celery makes it."""

import threading
from multiprocessing import get_context
from typing import Any

import celery
import pytest
from celery import signals
from celery._state import _task_stack
from celery.app.amqp import AMQP
from celery.app.task import Context

from conventions import ImmediateTask, Priority
from conventions.app import ConventionsApp
from conventions.core.errors import BrokerUnavailable
from tests.support import patient
from tests.workers import Sent, messages


class Plain(ImmediateTask):
    """Do nothing."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        """Do nothing."""


class Answering(ImmediateTask):
    """Whose result is kept."""

    idempotent_on = ("number",)
    ignore_result = False

    def run(self, number: int) -> None:
        """Do nothing."""


@pytest.fixture(autouse=True)
def _nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests may have left somebody who does."""
    for signal in (signals.before_task_publish, signals.after_task_publish, signals.task_sent):
        monkeypatch.setattr(signal, "receivers", [])


def sent(app: ConventionsApp, number: int) -> Sent:
    """The message with this argument."""
    (found,) = (one for one in messages(app) if one.arguments == {"number": number})
    return found


@pytest.fixture
def celerys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of messages that Celery made, the first of each kind among them."""
    made: list[str] = []
    own = AMQP.as_task_v2

    def as_task_v2(self: Any, task_id: str, *args: Any, **kwargs: Any) -> Any:
        made.append(task_id)
        return own(self, task_id, *args, **kwargs)

    monkeypatch.setattr(AMQP, "as_task_v2", as_task_v2)
    return made


def test_celery_makes_one_of_each_kind(app: ConventionsApp, celerys: list[str]) -> None:
    """By priority and queue; and each arrives once, as what it is."""
    for number in range(5):
        Plain.delay(number)
    for number in range(5, 8):
        Plain.apply_async((number,), priority=Priority.HIGH)
    for number in range(8, 10):
        Plain.apply_async((number,), queue="other")
    assert len(celerys) == 3
    found = sorted(messages(app), key=lambda one: one.arguments["number"])
    assert [one.arguments["number"] for one in found] == list(range(10))
    assert [one.priority for one in found[4:7]] == [Priority.NORMAL, Priority.HIGH, Priority.HIGH]
    assert [one.queue for one in found[7:9]] == ["immediate", "other"]


@pytest.mark.parametrize("text", ['order "7"', "a\\\\b", "a\nb\t\x7f", 'y", "task": "other", "z": "', "%(id)s", "注文"])
def test_any_text_may_be_an_id_a_key_or_an_actor(app: ConventionsApp, text: str) -> None:
    """It is a value of the message, whatever it holds."""
    Plain.delay(1)
    Plain.apply_async((2,), task_id=text)
    assert (sent(app, 2).id, sent(app, 2).headers["task"]) == (text, Plain.name)
    Plain.apply_async((3,), idempotency_key=text, actor=text)
    headers = sent(app, 3).headers
    assert (headers["x_key"], headers["x_actor"], headers["task"]) == (text, text, Plain.name)


@pytest.mark.parametrize("first", [str(Plain.name), "py", "()", "system", "immediate"])
def test_the_first_id_may_be_another_value_of_the_message(app: ConventionsApp, first: str) -> None:
    """Of which the next messages of its kind have their own."""
    Plain.apply_async((1,), task_id=first)
    Plain.apply_async((2,), task_id="next")
    one, two = sent(app, 1), sent(app, 2)
    assert (one.id, two.id) == (first, "next")
    for name in ("task", "lang", "argsrepr", "x_actor"):
        assert one.headers[name] == two.headers[name] != "next"
    assert (one.queue, two.queue) == ("immediate", "immediate")


def test_a_running_job_is_named_by_what_it_sends(app: ConventionsApp) -> None:
    """Also where the same task was sent before, outside of one."""
    Plain.delay(1)
    task = app.tasks[Plain.name]
    _task_stack.push(task)
    task.request_stack.push(Context(id="the-job", root_id="the-root", called_directly=False))
    try:
        Plain.delay(2)
    finally:
        task.request_stack.pop()
        _task_stack.pop()
    Plain.delay(3)
    assert [sent(app, number).headers["parent_id"] for number in (1, 2, 3)] == [None, "the-job", None]
    first, second, third = (sent(app, number) for number in (1, 2, 3))
    assert [first.headers["root_id"], second.headers["root_id"], third.headers["root_id"]] == [
        first.id,
        "the-root",
        third.id,
    ]


def _send_from_child(number: int) -> None:
    Plain.delay(number)


def test_a_child_and_a_thread_send_in_their_own_names(app: ConventionsApp) -> None:
    """`origin` has the process, `reply_to` the thread."""
    Plain.delay(1)
    child = get_context("fork").Process(target=_send_from_child, args=(2,))
    child.start()
    child.join(patient(20))
    thread = threading.Thread(target=Plain.delay, args=(3,))
    thread.start()
    thread.join(patient(20))
    origins = [sent(app, number).headers["origin"] for number in (1, 2, 3)]
    assert str(child.pid) in origins[1]
    assert origins[0] == origins[2] != origins[1]


@pytest.mark.parametrize("signal", [signals.before_task_publish, signals.after_task_publish])
def test_who_listens_hears_each(app: ConventionsApp, signal: Any) -> None:
    """From then on, and as long as it does."""
    heard: list[str] = []

    def listen(headers: dict[str, Any], **_: Any) -> None:
        heard.append(headers["id"])

    Plain.delay(1)
    signal.connect(listen)
    try:
        ids = [Plain.delay(number).id for number in (2, 3)]
    finally:
        signal.disconnect(listen)
    Plain.delay(4)
    assert heard == ids
    assert len(messages(app)) == 4


def test_what_replaces_apply_async_is_called(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """As libraries do that trace."""
    Plain.delay(1)
    own, seen = celery.Task.apply_async, []

    def apply_async(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["task_id"])
        return own(self, *args, **kwargs)

    monkeypatch.setattr(celery.Task, "apply_async", apply_async)
    assert seen == [] != [Plain.delay(2).id] == seen
    assert len(messages(app)) == 2


def test_options_of_one_message_and_results_are_celerys(app: ConventionsApp, celerys: list[str]) -> None:
    """Nothing of them is left to a template."""
    for number in (1, 2):
        Plain.apply_async((number,), countdown=60)
        Plain.apply_async((number + 2,), headers={"more": number})
        Answering.delay(number=number + 4)
    assert len(set(celerys)) == 6
    assert len(messages(app)) == 6


@pytest.mark.parametrize("setting", ["task_always_eager", "task_send_sent_event"])
def test_settings_that_change_count_at_once(app: ConventionsApp, celerys: list[str], setting: str) -> None:
    """As a test suite sets them."""
    Plain.delay(1)
    app.conf[setting] = True
    Plain.delay(2)
    if setting == "task_always_eager":
        assert [one.arguments["number"] for one in messages(app)] == [1]
    else:
        assert len(celerys) == 2
    app.conf[setting] = False
    made = len(celerys)
    Plain.delay(3)
    assert (len(celerys), len(messages(app))) == (made, 2 + (setting != "task_always_eager"))


def test_a_router_is_heard_of_at_once(app: ConventionsApp, celerys: list[str]) -> None:
    """Also one that is put into the list which is the setting."""
    routes = [*app.conf.task_routes]
    app.conf.task_routes = routes
    Plain.delay(1)
    Plain.delay(2)
    assert len(celerys) == 1
    routes.append({"another.task": {"queue": "another"}})
    Plain.delay(3)
    assert len(celerys) == 2


def test_attributes_that_change_count_at_once(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the task, such as its limits."""
    Plain.delay(1)
    monkeypatch.setattr(app.tasks[Plain.name], "time_limit", 77)
    Plain.delay(2)
    Plain.apply_async((3,), queue="tenant")
    assert [sent(app, number).headers["timelimit"][0] for number in (1, 2)] != [77, 77]
    assert len(messages(app)) == 3


def test_a_full_journal_refuses_it(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any other send."""
    Plain.delay(1)
    monkeypatch.setattr(app.broker, "journal_limit", 0)
    with pytest.raises(BrokerUnavailable):
        Plain.delay(2)
    assert len(messages(app)) == 1
