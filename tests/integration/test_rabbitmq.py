"""RabbitMQ as the broker, when it stands still or its queue is full: a send ends in time, and says what may be there."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu.entity import Queue

from conventions import EVERY_ARGUMENT, BrokerUnavailable, ImmediateTask
from tests.rabbitmq_servers import Rabbit, running_rabbitmq
from tests.workers import application

PATIENCE = 0.7  # seconds: `broker_timeout`; and a send may take a second more


class Number(ImmediateTask):
    """Take one number."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None: ...


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Rabbit]:
    """A RabbitMQ on this machine alone. Skips the tests where none is installed."""
    with running_rabbitmq() as server:
        yield server


@pytest.fixture
def _sender(request: pytest.FixtureRequest, rabbit: Rabbit, valkey_url: str, tmp_path: Path) -> Iterator[Any]:
    settings = {"redis_url": valkey_url, "database_url": f"sqlite:///{tmp_path}/x"}
    patience = getattr(request, "param", PATIENCE)
    with application(broker_url=rabbit.url, broker_timeout=patience, **settings) as app:
        Number.delay(0)
        yield app


def failed(send: Callable[[], Any]) -> BrokerUnavailable:
    """The error of a send, which is there in time."""
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable) as found:
        send()
    assert time.monotonic() - started < PATIENCE + 1
    return found.value


@pytest.mark.usefixtures("_sender")
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


@pytest.mark.parametrize("_sender", [30], indirect=True)
def test_a_queue_of_rabbitmq_that_is_full(_sender: Any) -> None:  # its application is what declares the queue
    """It says so, and the message is not there."""
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue: Any = Queue
    _sender.amqp.queues.add(queue("small", queue_arguments=full, max_priority=9))
    with pytest.raises(BrokerUnavailable) as error:
        _fill("small")
    assert not error.value.maybe_sent
    assert "its queue is full" in str(error.value)
    with pytest.raises(BrokerUnavailable, match="their queue is full") as several:
        Number.enqueue_many([{"number": number} for number in range(1000, 1100)], queue="small")
    assert not several.value.maybe_sent
    assert 0 < len(several.value.ids) <= 100
    Number.delay(3)
