"""Messages for RabbitMQ that are not due: kept in Redis, given back when RabbitMQ does not take them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amqp  # type: ignore[import-untyped]  # it has no types
import pytest

from conventions import BrokerUnavailable
from conventions.app import ConventionsApp
from conventions.broker.codec import request_digest
from conventions.broker.rabbitmq_delays_in_redis import delayed, is_copy
from conventions.broker.rabbitmq_port import RabbitMQPort
from conventions.broker.redis_broker import HeldMessage, Publication, Sizes
from tests.redis_servers import free_port
from tests.support import wait_until
from tests.workers import application

BODY = '[[], {"number": 1}, {}]'


@pytest.fixture
def app(valkey_url: str, tmp_path: Path) -> Iterator[ConventionsApp]:
    """An application whose RabbitMQ is away."""
    address = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
    settings: dict[str, Any] = {"redis_url": valkey_url, "database_url": f"sqlite:///{tmp_path}/x"}
    with application(broker_url=address, broker_timeout=0.5, key_prefix=tmp_path.name, **settings) as app:
        yield app


def message(id_: str = "m1", **headers: Any) -> Any:
    """A message as kombu gives it to py-amqp."""
    named = {"id": id_, "task": "t", "eta": "2030-01-01T00:00:00+00:00", **headers}
    return amqp.Message(
        BODY, priority=7, content_type="application/json", content_encoding="utf-8", application_headers=named,
        correlation_id=id_, reply_to="", delivery_mode=2,
    )  # fmt: skip


def port(app: ConventionsApp) -> RabbitMQPort:
    """The broker, which is RabbitMQ."""
    assert isinstance(app.port, RabbitMQPort)
    return app.port


def test_a_message_as_redis_keeps_it() -> None:
    """All of it is there, and the same request has the same digest, so that a send that is tried again is one message."""
    found = delayed(message(x_generation=2), "reports", 5.0)
    assert (found.tag, found.queue, found.priority, found.wait, found.generation) == ("m1", "reports", 7, 5.0, 2)
    assert found == delayed(message(x_generation=2), "reports", 5.0)
    assert found.digest != delayed(message(retries=1), "reports", 5.0).digest
    assert request_digest({}, "") != found.digest


def test_one_that_takes_the_place_of_another_must_be_on_the_disk() -> None:
    """A retry, a parked job, one of an unknown task."""
    assert is_copy(message(x_copy="token"))
    assert is_copy(message(x_unknown=1))
    assert not is_copy(message())


def test_what_rabbitmq_does_not_take_is_kept(app: ConventionsApp) -> None:
    """It is due again soon, and nothing is lost; a later message waits for its time."""
    delays = port(app).delays
    delays.keep([delayed(message(), "reports", 0.0), delayed(message("m2"), "reports", 60.0)], on_disk=True)
    for _ in range(2):
        wait_until(lambda: app.broker.sweep() and app.broker.sizes("reports").ready == 1, 10, "one is due")
        with pytest.raises(BrokerUnavailable, match="RabbitMQ does not take 1 messages"):
            delays.forward()
        assert app.broker.sizes("reports") == Sizes(0, 2, 0)
    assert port(app).queues() == {"reports"}


def test_a_copy_that_comes_while_the_one_before_is_forwarded_is_another_message(app: ConventionsApp) -> None:
    """RabbitMQ may deliver it before the forwarder has acknowledged it in Redis, and a worker may put it off once more by then."""
    delays = port(app).delays
    delays.keep([delayed(message(x_unknown=1), "reports", 0.0)], on_disk=True)
    (forwarded,) = app.broker.reserve(["reports"], 1)
    delays.keep([delayed(message(x_unknown=2), "reports", 60.0)], on_disk=True)
    app.broker.acknowledge([HeldMessage("m1", "reports", forwarded.receipt)])
    assert app.broker.sizes("reports") == Sizes(0, 1, 0)


def test_what_nobody_can_read_stays_and_holds_up_nobody(app: ConventionsApp) -> None:
    """As when another program wrote it."""
    app.broker.publish([Publication("x", "reports", "no JSON", 4)])
    assert port(app).delays.forward() == 0
    assert app.broker.sizes("reports") == Sizes(0, 1, 0)
