"""A step after a job whose send raises: when it is tried again, when the job comes again, when it is a dead letter."""

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import celery
import pytest
from celery import Signature, chain, chord, group
from celery.app.task import Context
from celery.exceptions import Reject
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisAway
from redis.exceptions import DataError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from conventions import EVERY_ARGUMENT, BrokerUnavailable, ImmediateTask, PayloadError
from conventions.app import ConventionsApp
from conventions.broker.codec import read_body
from conventions.core.errors import NewerLayout
from conventions.execution.application import may_pass
from conventions.execution.unsent_step import UnsentStep
from conventions.records.journal import JournalEntry
from conventions.sending.publish import publish
from conventions.sending.sent_or_refused import sent_or_refused
from tests.workers import messages


class Step(ImmediateTask):
    """Take the result of the job before, and one argument."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, result: int, factor: int = 1) -> None: ...


@pytest.fixture
def ended(app: ConventionsApp) -> Iterator[None]:
    """The job of this thread has ended, in its third generation."""
    task = app.tasks[Step.name]
    task.push_request(**vars(Context({"id": "before", "x_actor": "u-42"})))
    task.request.job = SimpleNamespace(ended=True, generation=2, edited_by=None, sealed=False)
    celery._state._task_stack.push(task)
    yield
    celery._state._task_stack.pop()
    task.pop_request()


@pytest.fixture
def step(app: ConventionsApp) -> Callable[[], UnsentStep]:
    """It."""
    options: dict[str, Any] = {"task_id": "m", "link": [Step.s(3)], "chain": [Step.s(4)], "headers": {"n": 2**70}}
    return lambda: UnsentStep.of(
        app, Step.s(factor=2).set(**options), (7,), root_id="root", parent_id="before", priority=None
    )


def raising(*errors: BaseException) -> tuple[Callable[[], str], list[int]]:
    """What raises these in turn, and then sends; and how often it was called."""
    calls: list[int] = []

    def send() -> str:
        calls.append(len(calls))
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return "sent"

    return send, calls


def letters(app: ConventionsApp) -> list[Any]:
    """The letters in the journal."""
    entries: Any = app.store.redis.xrange(app.journal.key)
    return [JournalEntry.read(entry[0], entry[1], app.store.entry_signatures).event for entry in entries]


@pytest.mark.usefixtures("ended")
def test_a_connection_that_breaks(app: ConventionsApp, step: Callable[[], UnsentStep]) -> None:
    """Libraries raise anything then, once: `'NoneType' object has no attribute 'send'`."""
    send, calls = raising(AttributeError("'NoneType' object has no attribute 'send'"))
    assert (sent_or_refused(send, step, lambda: "refused"), len(calls)) == ("sent", 2)
    assert letters(app) == []


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize("error", [Reject("away", requeue=True), RedisAway("away"), OSError("full"), MemoryError()])
def test_what_may_pass_is_raised(app: ConventionsApp, step: Callable[[], UnsentStep], error: BaseException) -> None:
    """The job comes again, and sends it then."""
    send, calls = raising(error)
    with pytest.raises(type(error)):
        sent_or_refused(send, step, lambda: "refused")
    assert (len(calls), letters(app)) == (1, [])


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize("error", [DataError("a number of 70 bits"), KeyError("queue"), RecursionError()])
def test_what_never_passes_is_a_letter(
    app: ConventionsApp, step: Callable[[], UnsentStep], error: BaseException
) -> None:
    """With all that a redrive needs: the arguments by name, what follows it, who sent it; the same one each time."""
    for _ in range(2):
        send, calls = raising(error, error)
        assert (sent_or_refused(send, step, lambda: "refused"), len(calls)) == ("refused", 2)
    letter, again = letters(app)
    assert letter.id == again.id
    assert (letter.message_id, letter.task, letter.queue, letter.actor) == ("m", Step.name, "immediate", "u-42")
    assert (letter.arguments, letter.generation, letter.attempt) == ({"result": 7, "factor": 2}, 2, 0)
    headers = letter.message["headers"]
    assert letter.message["properties"]["priority"] == 4
    assert (headers["id"], headers["root_id"], headers["parent_id"], "n" in headers) == ("m", "root", "before", False)


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize("redelivered", [False, True])
def test_a_step_of_a_job_that_came_again_is_tried_once(
    app: ConventionsApp, monkeypatch: pytest.MonkeyPatch, redelivered: bool
) -> None:
    """The job will come again; with a full queue, jobs that try for longer leave no process for others."""
    monkeypatch.setattr(app.settings, "broker_timeout", 0.5)
    celery.current_task.request.delivery_info = {"redelivered": redelivered}
    send, calls = raising(*[OperationalError("its queue is full")] * 100)
    with pytest.raises(Reject, match="its queue is full"):
        publish(lambda *_, **__: send(), app, "m")
    assert (len(calls) == 1) is redelivered


def test_a_send_that_is_no_step(app: ConventionsApp, step: Callable[[], UnsentStep]) -> None:
    """Whoever sends hears of it, at once."""
    send, calls = raising(KeyError("queue"))
    with pytest.raises(KeyError):
        sent_or_refused(send, step, lambda: "refused")
    assert (len(calls), letters(app)) == (1, [])


@pytest.mark.usefixtures("ended")
def test_a_letter_has_the_actor_and_the_key_of_its_step(app: ConventionsApp) -> None:
    """Also where the step failed its checks; a key that is the fault is left out."""
    Step.apply_async(("no number",), task_id="1", idempotency_key="its own", actor="u-7")
    Step.apply_async((1,), task_id="2", idempotency_key="half a \ud800", actor="u-7")
    signature = Step.signature(("no number",)).set(task_id="3", idempotency_key="its own", actor="u-7")
    UnsentStep.of(app, signature, ()).refuse(ValueError("no"))
    found = {one.message_id: one for one in letters(app)}
    assert [one.actor for one in found.values()] == ["u-7"] * 3
    assert [one.message["headers"].get("x_key") for one in found.values()] == ["its own", None, "its own"]
    assert [one.headers.get("x_key") for one in found.values()] == ["its own", None, "its own"]


@pytest.mark.usefixtures("ended")
def test_arguments_of_a_wrong_type_have_their_names(app: ConventionsApp) -> None:
    """A later release may take them, and a person may edit them."""
    Step.apply_async(("no number",), {"factor": 3}, task_id="1")
    (letter,) = letters(app)
    assert letter.arguments == {"result": "no number", "factor": 3}
    assert read_body(letter.message).kwargs == letter.arguments


@pytest.mark.usefixtures("ended")
def test_arguments_that_cannot_be_read(app: ConventionsApp) -> None:
    """The letter shows them as they are; its error says what is wrong."""
    circle: list[Any] = []
    circle.append(circle)
    signature = Signature("other.task", args=(circle,), kwargs={}, options={"queue": "reports"})
    UnsentStep.of(app, signature, ()).refuse(ValueError("Circular reference detected"))
    (letter,) = letters(app)
    assert (letter.task, letter.queue, letter.message) == ("other.task", "reports", None)
    assert "[[...]]" in json.dumps(letter.arguments)


@pytest.mark.usefixtures("ended")
@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery
@pytest.mark.parametrize("within", [lambda one: one, lambda one: chain(Step.s(1), one)], ids=["alone", "in a chain"])
def test_those_who_wait_for_a_canvas(app: ConventionsApp, within: Callable[[Any], Any]) -> None:
    """The result of a chord is that of its body, and its errbacks are those of its body."""
    errback = Step.si(5).set(task_id="errback")
    body = Step.s(9).set(task_id="body", link_error=errback, ignore_result=False)
    signature = chord([Step.s(2), Step.s(3)], within(body))
    UnsentStep.of(app, signature, (7,), parent_id="before").refuse(ValueError("no"))
    assert app.AsyncResult("body").state == "FAILURE"
    assert [one.id for one in messages(app)] == ["errback"]
    members = [Step.s(number).set(task_id=f"member {number}") for number in (1, 2)]
    UnsentStep.of(app, group(members), (7,), parent_id="before").refuse(ValueError("no"))
    assert [app.AsyncResult(f"member {number}").state for number in (1, 2)] == ["FAILURE", "FAILURE"]


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


PASSING: list[tuple[Exception, bool]] = [
    (RedisAway("away"), True),
    (RedisTimeout("slow"), True),
    (ResponseError("OOM command not allowed"), True),
    (ResponseError("Command # 1 (SETEX a 5 b) of pipeline caused error: MISCONF Redis is configured to"), True),
    (ResponseError("WRONGTYPE Operation against a key"), False),
    (ResponseError("value is not a valid float"), False),
    (DataError("a number of 70 bits"), False),
    (OperationalError("away"), True),
    (OSError("away"), True),
    (BrokerUnavailable("away"), True),
    (_caused(RuntimeError("no subscription"), RedisAway("away")), True),
    (RuntimeError("a fault"), False),
    (RecursionError(), False),
    (NewerLayout("a later release"), True),
    (Reject("away", requeue=True), True),
    (Reject("no", requeue=False), False),
    (PayloadError("no"), False),
    (KeyError("queue"), False),
]


@pytest.mark.parametrize(("error", "passes"), PASSING, ids=repr)
def test_which_errors_may_pass(app: ConventionsApp, error: Exception, passes: bool) -> None:
    """A server that does not answer, or takes nothing; not what it says of this message."""
    assert may_pass(app, error) is passes
