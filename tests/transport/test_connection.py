"""Which transport an address means: ours for the connections of our applications, kombu's for all others in the process."""

import copy
import pickle
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from kombu import pools
from kombu.connection import Connection as KombusConnection
from kombu.transport import TRANSPORT_ALIASES, pyamqp, redis

from conventions.app import ConventionsApp
from conventions.transport.connection import TRANSPORTS, Connection
from conventions.transport.rabbitmq_transport import SSLTransport
from conventions.transport.rabbitmq_transport import Transport as RabbitMQTransport
from conventions.transport.redis_transport import SentinelTransport, Transport
from tests.workers import close

ADDRESSES: dict[str, type[Any]] = {
    "redis://127.0.0.1:1/0": Transport,
    "rediss://127.0.0.1:1/0": Transport,
    "redis+socket:///tmp/nobody.sock": Transport,
    "sentinel://127.0.0.1:1": SentinelTransport,
    "amqp://127.0.0.1:1//": RabbitMQTransport,
    "pyamqp://127.0.0.1:1//": RabbitMQTransport,
    "amqps://127.0.0.1:1//": SSLTransport,
}


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.filterwarnings("ignore:Secure redis scheme")
def test_an_address_means_our_transport(address: str) -> None:
    """In each form in which kombu carries a connection on, and after a switch from another address."""
    connection = Connection(address)  # type: ignore[no-untyped-call]  # kombu has few types
    pool = connection.Pool(2)
    pooled = pool.acquire()
    switched = Connection("memory://")  # type: ignore[no-untyped-call]  # the same
    switched.switch(address.replace("redis+socket", "redis"))  # type: ignore[no-untyped-call]  # the same
    listed = Connection(f"memory://;{address}")  # type: ignore[no-untyped-call]  # the same
    if "+" not in address:  # which kombu's switch does not know
        listed.maybe_switch_next()  # type: ignore[no-untyped-call]  # the same
        assert listed.get_transport_cls() is ADDRESSES[address]
    of_pickle = pickle.loads(pickle.dumps(connection))  # written here
    for one in (connection, connection.clone(), copy.copy(connection), pooled, pooled.clone(), switched, of_pickle):  # type: ignore[no-untyped-call]  # the same
        assert one.get_transport_cls() is ADDRESSES[address]
    assert pool.acquire().get_transport_cls() is ADDRESSES[address]


def test_kombus_own_table_is_as_it_was(app: ConventionsApp) -> None:
    """Whatever our application has sent before."""
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1)
    assert {scheme: path for scheme, path in TRANSPORT_ALIASES.items() if "conventions" in str(path)} == {}
    for address, transport in (("redis://127.0.0.1:1", redis.Transport), ("amqp://127.0.0.1:1", pyamqp.Transport)):
        assert KombusConnection(address).get_transport_cls() is transport  # type: ignore[no-untyped-call]  # the same


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_plain_application_beside_ours_on_the_same_server(app: ConventionsApp, ours_first: bool) -> None:
    """Each has its transport, also in the pools of the process, whichever sends first."""
    queue = f"beside-{uuid4().hex[:8]}"
    with Celery("plain", broker=app.conf.broker_url, set_as_current=False) as plain:
        for one in (app, plain) if ours_first else (plain, app):
            with one.producer_or_acquire() as producer:
                producer.publish({}, routing_key=queue)
        connections = [pools.connections[one.connection_for_write()] for one in (app, plain)]
        with connections[0].acquire() as ours, connections[1].acquire() as theirs:
            assert (ours.get_transport_cls(), theirs.get_transport_cls()) == (Transport, redis.Transport)
            with theirs.SimpleQueue(queue) as waiting:
                found = waiting.get(timeout=5)
                assert found.payload == {}
                found.ack()
        assert app.broker.sizes(queue).ready == 1
        app.broker.drop(queue)
        close(plain)


def test_a_pool_of_kombus_for_the_same_address_is_another_one(app: ConventionsApp) -> None:
    """Whoever asks for it first."""
    options = app.conf.broker_transport_options
    plain = KombusConnection(app.conf.broker_url, transport_options=options)  # type: ignore[no-untyped-call]  # the same
    theirs = pools.connections[plain]
    assert pools.connections[app.connection_for_write()] is not theirs
    assert pools.connections[plain] is theirs


def test_schemes_are_those_of_kombu() -> None:
    """So that the address that somebody writes stays what it is."""
    assert set(TRANSPORTS) <= set(TRANSPORT_ALIASES)


def test_the_pool_of_an_application_is_one(app: ConventionsApp, tmp_path: Path) -> None:
    """Found again under the address and the options."""
    assert app.pool is pools.connections[app.connection_for_write()]
