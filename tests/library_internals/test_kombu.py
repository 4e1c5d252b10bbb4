"""What kombu and py-amqp do not document and this package uses: another release fails here, with what to look at."""

from datetime import UTC, datetime
from typing import Any

import pytest
from amqp.exceptions import MessageNacked  # type: ignore[import-untyped]  # py-amqp has no types
from kombu import pools
from kombu.asynchronous.hub import Hub
from kombu.asynchronous.semaphore import LaxBoundedSemaphore
from kombu.utils import json
from kombu.utils.limits import TokenBucket

from conventions.app import ConventionsApp
from conventions.broker.bulk_publish import PublishBatch
from conventions.library_internals import kombu as internals
from conventions.transport.redis_channel import Channel, SentinelChannel
from tests.library_internals.seam import Seam

SEAMS = [
    # Redis' transport: `overridden.txt` has the methods that ours take the place of; these call them.
    Seam("kombu.transport.redis:MultiChannelPoller.on_poll_start", "(self)", "c71f33882f", "transport/redis_transport.py"),
    Seam("kombu.transport.redis:MultiChannelPoller._unregister", "(self, channel, client, type)", "f70def85a1", "transport/redis_transport.py"),
    Seam("kombu.transport.redis:MultiChannelPoller._client_registered", "(self, channel, client, cmd)", "1678694a4b", "transport/redis_reading.py"),
    Seam("kombu.transport.redis:MultiChannelPoller._update_brpop_polling", "(self)", "187994b984", "transport/redis_transport.py"),
    Seam("kombu.transport.redis:MultiChannelPoller.handle_event", "(self, fileno, event)", "fd40827875", "transport/redis_transport.py"),
    Seam("kombu.transport.redis:MultiChannelPoller.maybe_check_brpop_health", "(self)", "ef9e51feec", "transport/redis_reading.py"),
    Seam("kombu.transport.redis:Channel._receive", "(self)", "8d5d4deaee", "transport/redis_reading.py"),
    Seam("kombu.transport.redis:Channel._subscribe", "(self)", "ff9a0b005c", "transport/redis_reading.py"),
    Seam("kombu.transport.redis:Channel._create_client", "(self, asynchronous=)", "d0f7c1370d", "transport/redis_channel.py"),
    # Connections.
    Seam("kombu.connection:Connection._info", "(self, resolve=)", "653e75107c", "library_internals/kombu.py"),
    Seam("kombu.connection:Connection.switch", "(self, conn_str)", "69d2202375", "transport/connection.py"),
    Seam("kombu.connection:Connection.create_transport", "(self)", "a70292109b", "transport/connection.py"),
    Seam("kombu.pools:Connections", "", "1a3b8755bc", "transport/connection.py"),
    # RabbitMQ's.
    Seam("kombu.transport.base:Transport._make_reader", "(self, connection, timeout=, error=, _unavail=)", "ec628c391d", "transport/rabbitmq_transport.py"),
    Seam("amqp.channel:Channel._on_basic_return", "(self, reply_code, reply_text, exchange, routing_key, message)", "07ad9657e5", "transport/rabbitmq_read_four_as_one.py"),
    Seam("amqp.channel:Channel.basic_publish_confirm", "(self, *args, **kwargs)", "2227326771", "transport/rabbitmq_read_four_as_one.py"),
    Seam("amqp.channel:Channel._on_basic_deliver", "(self, consumer_tag, delivery_tag, redelivered, exchange, routing_key, msg)", "8ee5ae322e", "transport/rabbitmq_read_four_as_one.py"),
    Seam("kombu.transport.virtual.base:Transport._deliver", "(self, message, queue)", "23eb22f354", "transport/redis_reading.py"),
    Seam("kombu.transport.virtual.base:Channel.basic_publish", "", "f3e6cb55be", "transport/redis_channel.py, broker/bulk_publish.py"),
    Seam("kombu.transport.virtual.base:Channel.prepare_message", "", "e17a5ea4fb", "broker/codec.py"),
    Seam("kombu.transport.virtual.base:Channel._inplace_augment_message", "", "808506e239", "broker/codec.py"),
    Seam("kombu.transport.virtual.base:Message.__init__", "", "7916df3cc1", "broker/codec.py, transport/redis_channel.py"),
    Seam("kombu.messaging:_ProducerBatchState", "", "b70a637913", "broker/bulk_publish.py"),
    Seam("kombu.messaging:_ProducerBatch", "", "29b49384c6", "broker/bulk_publish.py, sending/bulk_sender.py"),
    Seam("kombu.utils.json:loads", "", "b064f7226a", "broker/codec.py"),
    Seam("kombu.utils.json:object_hook", "(o)", "cf29125995", "broker/codec.py"),
    Seam("kombu.utils.limits:TokenBucket", "", "fe44e08cd5", "worker/hold_back_rate_limited.py"),
    Seam("kombu.asynchronous.hub:Hub.create_loop", "", "c916e492e3", "transport/redis_transport.py, worker/shutdown.py"),
]  # fmt: skip


@pytest.mark.parametrize("seam", SEAMS, ids=str)
def test_a_function_is_what_it_was(seam: Seam) -> None:
    """It is there, takes these arguments, and does what it did when somebody looked at it."""
    assert not seam.fault()


def test_a_channel_of_ours(app: ConventionsApp) -> None:
    """By the address of the application."""
    with app.connection_for_write() as connection:
        assert isinstance(connection.default_channel, Channel)
    assert not issubclass(SentinelChannel, Channel)


def test_a_batch_of_a_producer_has_ours(app: ConventionsApp) -> None:
    """Which our channel made for it."""
    with app.producer_or_acquire() as producer, producer.batch(10) as batch:
        producer.publish({}, routing_key="tests.batch")
        collected = internals.publish_batch_of(batch)
        assert type(collected) is PublishBatch
        assert collected.waiting == 1
        collected.withdraw()


def test_json_of_its_own_has_the_mark() -> None:
    """What kombu reads in another way than JSON says."""
    codec: Any = json  # kombu has few types
    written = codec.dumps({"at": datetime.now(UTC)})
    assert internals.KOMBU_TYPE in written.encode()
    assert isinstance(codec.loads(written)["at"], datetime)
    assert internals.KOMBU_TYPE not in codec.dumps({"at": "now"}).encode()


def test_connections_are_forgotten() -> None:
    """And made anew when there is something to send."""
    assert {"connections", "producers"} <= vars(pools).keys()
    internals.forget_connections()
    assert not pools.connections
    assert not pools.producers


def test_a_refusal_of_rabbitmq() -> None:
    """By the name of py-amqp's class."""
    assert internals.is_refusal(MessageNacked())
    assert not internals.is_refusal(OSError())
    assert not internals.is_refusal(None)


def test_what_is_asked_of_a_loop() -> None:
    """Timers, readers, and what is called in each turn."""
    hub: Any = Hub()  # type: ignore[no-untyped-call]  # kombu has few types
    try:
        assert isinstance(hub.on_tick, set)
        assert isinstance(hub.readers, dict)
        for name in ("call_later", "call_repeatedly", "call_soon", "add_reader", "remove_reader"):
            assert callable(getattr(hub, name)), name
        assert hub.consolidate_callback is None, "a pool of processes sets it"
    finally:
        hub.close()


def test_what_is_asked_of_a_rate_limit_and_of_the_number_of_free_processes() -> None:
    """The bucket of a task, and the semaphore of a pool."""
    bucket: Any = TokenBucket(2.0)  # type: ignore[no-untyped-call]  # the same
    bucket.add(("message", "run"))
    assert list(bucket.contents) == [("message", "run")]
    assert bucket.can_consume()
    assert 0 < bucket.expected_time(1) <= 0.5
    assert bucket.pop() == ("message", "run")
    assert bucket.fill_rate == 2.0
    semaphore = LaxBoundedSemaphore(2)
    semaphore.acquire(lambda: None)
    assert (semaphore.initial_value, semaphore.value) == (2, 1)
