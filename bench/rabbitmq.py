"""The RabbitMQ of a run, which somebody has started: `--rabbitmq`."""

from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urlsplit

import psutil
from kombu.connection import Connection
from kombu.transport.native_delayed_delivery import MAX_LEVEL, level_name

from conventions.broker.rabbitmq_priorities import queues_of
from conventions.transport.celery_defaults import CLASS_QUEUES

PORTS = {"amqp": 5672, "amqps": 5671}  # by scheme
HERE = ("127.0.0.1", "localhost", "::1")
SERVER = "beam"  # how the name of RabbitMQ's process begins
OF_CELERY = ("celery", *(level_name(level) for level in range(MAX_LEVEL + 1)))
QUEUES = (*OF_CELERY, *(one for queue in CLASS_QUEUES for one in queues_of(queue)))


@dataclass(frozen=True, slots=True)
class RabbitMQ:
    """A RabbitMQ of this machine.

    Args:
        url: names a virtual host that is for the run alone: its queues are deleted.
        process: the server, whose CPU counts.
    """

    url: str
    process: psutil.Process

    @classmethod
    def at(cls, url: str) -> Self:
        """The one at this address. Raises: ValueError, which names no password."""
        address = urlsplit(url)
        if address.scheme not in PORTS or address.hostname not in HERE:
            raise ValueError(f"the address begins with amqp:// or amqps://, and its host is one of {', '.join(HERE)}")
        if not unquote(address.path.removeprefix("/")).strip("/"):
            raise ValueError(
                "the address names no virtual host; queues of the one named / are not deleted by a benchmark"
            )
        return cls(url, _process_at(_port_of(address)))

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it has used. Raises: psutil.Error."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    @property
    def version(self) -> str:
        """Its number. Raises: OSError."""
        with self._connection() as connection:
            return str(connection.connection.server_properties["version"])

    def empty(self) -> None:
        """Delete the queues of all systems. Raises: OSError."""
        with self._connection() as connection:
            for queue in QUEUES:
                connection.default_channel.queue_delete(queue)

    def _connection(self) -> Any:
        return Connection(self.url)  # type: ignore[no-untyped-call]  # kombu has few types


def _port_of(address: SplitResult) -> int:
    try:
        return address.port or PORTS[address.scheme]
    except ValueError:
        raise ValueError("what stands for the port is no number; in a password, / is written %2F") from None


def _process_at(port: int) -> psutil.Process:
    try:
        listeners = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        found = {psutil.Process(one.pid) for one in listeners if one.pid and one.laddr[1:2] == (port,)}
        for process in found:
            if process.name().startswith(SERVER):
                return process
    except psutil.Error:
        pass
    raise ValueError(
        f"no RabbitMQ listens on port {port} here, or this account may not see its process: run as its account, or root"
    )
