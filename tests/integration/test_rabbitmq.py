"""RabbitMQ as the broker, when it stands still or its queue is full: a send ends in time, and says what may be there."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import amqp  # type: ignore[import-untyped]  # it has no types
import pytest
from kombu.entity import Queue

from conventions import EVERY_ARGUMENT, BrokerUnavailable, ImmediateTask, PayloadError
from conventions.broker.rabbitmq_delays_in_redis import delayed
from conventions.core.deadline import Deadline
from tests.rabbitmq_servers import Rabbit
from tests.support import at_most, patient, wait_until
from tests.workers import application

PATIENCE = 0.7  # seconds: `broker_timeout`; and a send may take a second more


class Number(ImmediateTask):
    """Take one number."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None: ...


@pytest.fixture
def sender(request: pytest.FixtureRequest, rabbit: Rabbit, valkey_url: str, tmp_path: Path) -> Iterator[Any]:
    settings = {"redis_url": valkey_url, "database_url": f"sqlite:///{tmp_path}/x"}
    patience = getattr(request, "param", 30)  # on a busy machine RabbitMQ takes its time
    with application(broker_url=rabbit.url_of(rabbit.add_host()), broker_timeout=patience, **settings) as app:
        wait_until(_takes, 30, "RabbitMQ has made the queue")
        yield app


def _takes() -> bool:
    with suppress(BrokerUnavailable):
        return bool(Number.delay(0))
    return False


def failed(send: Callable[[], Any]) -> BrokerUnavailable:
    """The error of a send, which is there in time."""
    with at_most(PATIENCE, slack=1), pytest.raises(BrokerUnavailable) as found:
        send()
    return found.value


@pytest.mark.usefixtures("sender")
@pytest.mark.parametrize("sender", [PATIENCE], indirect=True)
def test_rabbitmq_that_stands_still(rabbit: Rabbit) -> None:
    """What it was given may be there, and what found no connection is not; then it goes on as before."""
    rabbit.freeze()
    try:
        given = failed(lambda: Number.apply_async((1,), task_id="given"))
        late = failed(lambda: Number.delay(2))
        many = failed(lambda: Number.enqueue_many([{"number": 3}, {"number": 4}]))
    finally:
        rabbit.thaw()
    assert (given.maybe_sent, given.ids) == (True, ["given"])
    assert str(given).startswith("may have been sent: ")
    assert not late.maybe_sent
    assert not many.maybe_sent
    assert str(late).startswith("not sent: ")
    assert Number.apply_async((1,), task_id="given").id == "given"


def _fill(queue: str) -> None:
    for number in range(100):  # a quorum queue lets some more in before it says so
        Number.apply_async((number,), queue=queue)


def _refused(why: str, send: Callable[[], Any]) -> BrokerUnavailable:
    """The error of a send that RabbitMQ refuses. A busy one may not answer in time, which is another error."""

    def tried() -> BrokerUnavailable | None:
        with pytest.raises(BrokerUnavailable) as found:
            send()
        return found.value if why in str(found.value) else None

    return wait_until(tried, 60, why)


@pytest.mark.parametrize("sender", [5.0], indirect=True)  # a refusal is tried again for as long
def test_a_queue_of_rabbitmq_that_is_full(sender: Any) -> None:  # its application is what declares the queue
    """It says so, and the message is not there."""
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue: Any = Queue
    sender.amqp.queues.add(queue("small", queue_arguments=full, max_priority=9))
    error = _refused("its queue is full", lambda: _fill("small"))
    assert not error.maybe_sent
    many = [{"number": number} for number in range(1000, 1100)]
    several = _refused("their queue is full", lambda: Number.enqueue_many(many, queue="small"))
    assert not several.maybe_sent
    assert 0 < len(several.ids) <= 100
    assert wait_until(_takes)


# What must not be lost, nor hold others back.


UNCARRIED: list[tuple[dict[str, Any], str]] = [
    ({"headers": {"trace_id": 2**63}}, "RabbitMQ cannot carry its headers"),
    ({"task_id": "漢" * 100}, "RabbitMQ cannot carry an id of 300 bytes, of which it takes 255"),
]


@pytest.mark.parametrize(("options", "why"), UNCARRIED)
@pytest.mark.parametrize("wait", [{}, {"countdown": 9}])
@pytest.mark.usefixtures("sender")
def test_what_amqp_cannot_carry_is_refused_at_the_send(options: dict[str, Any], why: str, wait: dict[str, Any]) -> None:
    """Also where it would wait in Redis first."""
    with pytest.raises(PayloadError, match=why):
        Number.apply_async((1,), **options, **wait)
    if "headers" in options:
        with pytest.raises(PayloadError, match=why):
            Number.enqueue_many([{"number": 1}], **options)


def _forward_until(app: Any, is_done: Callable[[], bool]) -> None:
    def forwarded() -> bool:
        app.port.delays.forward()
        return is_done()

    wait_until(forwarded)


def _in_rabbitmq(app: Any, queue: str) -> int:
    with app.connection_for_read() as connection:
        found: int = connection.default_channel.waiting(queue)
    return found


def test_one_that_cannot_be_forwarded_keeps_no_other_back(sender: Any) -> None:
    """As a later release, or another program, may have written it. It stays in Redis."""
    headers = {"id": "bad", "task": Number.name, "trace_id": 2**63}
    bad = amqp.Message(
        "[[], {}, {}]", application_headers=headers, correlation_id="bad", content_type="application/json"
    )
    before = _in_rabbitmq(sender, "immediate")
    sender.port.delays.keep([delayed(bad, "immediate", 0.01)], on_disk=False)
    for number in range(5):
        Number.apply_async((number,), countdown=0.01)
    _forward_until(sender, lambda: _in_rabbitmq(sender, "immediate") == before + 5)
    assert sender.broker.sizes("immediate").delayed == 1


def test_a_full_queue_keeps_no_message_of_another_back_nor_repeats_one(sender: Any) -> None:
    """Each of the others is there once, however often the full one refuses."""
    queue: Any = Queue
    sender.amqp.queues.add(
        queue("tiny", queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"}, max_priority=9)
    )
    with pytest.raises(BrokerUnavailable), Deadline(1.0):
        _fill("tiny")
    before = _in_rabbitmq(sender, "immediate")
    for number in range(5):
        Number.apply_async((number,), countdown=0.01)
        Number.apply_async((number,), queue="tiny", countdown=0.01)
    _forward_until(sender, lambda: _in_rabbitmq(sender, "immediate") >= before + 5)
    for _ in range(3):
        sender.port.delays.forward()
    assert _in_rabbitmq(sender, "immediate") == before + 5
    assert sender.broker.sizes("tiny").delayed == 5


def test_rabbitmq_drops_no_message_that_is_too_late(sender: Any) -> None:
    """A worker records that it has expired."""
    Number.apply_async((1,), queue="late", expires=0.01)
    with sender.connection_for_read() as connection:
        found = wait_until(lambda: connection.default_channel.basic_get("late", no_ack=True))
    assert "expiration" not in found.properties
    assert found.headers["expires"]


@pytest.mark.parametrize("exchange", ["nope", "amq.direct"])
def test_an_exchange_that_leads_nowhere(sender: Any, exchange: str) -> None:
    """There is none of the name, or no queue is bound to it."""

    def send() -> None:
        with Deadline(patient(2.0)):  # it is tried again until then
            Number.apply_async((1,), exchange=exchange, routing_key="nowhere")

    assert not _refused("not sent: ", send).maybe_sent


def test_a_queue_that_is_deleted_while_its_reader_rests(sender: Any) -> None:
    """An error of the connection: who connects anew makes it again."""
    with sender.connection_for_read() as connection, sender.connection_for_write() as other:
        channel = connection.default_channel
        channel.make_queue("gone")
        channel.basic_qos(0, 1, False)
        channel.basic_consume("gone", "reader", callback=lambda _: None)
        channel.ahead.rest()
        other.default_channel.make_queue("gone")
        other.default_channel.queue_delete("gone")
        with pytest.raises(ConnectionError, match="is gone"):
            channel.go_on()
