"""The RabbitMQ of a run, which somebody has started: `--rabbitmq`."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import psutil

PORT = 5672


@dataclass(frozen=True, slots=True)
class RabbitMQ:
    """A RabbitMQ of this machine.

    Args:
        url: names a virtual host that is for the run alone: its queues are deleted before each round.
        process: the server, whose CPU counts.
    """

    url: str
    process: psutil.Process

    @classmethod
    def at(cls, url: str) -> Self:
        """The one at this address. Raises: ValueError."""
        port = urlsplit(url).port or PORT
        listens = [
            one
            for one in psutil.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,)
        ]
        process = next((one.pid for one in listens if one.pid), None)
        if process is None:
            raise ValueError(f"no process of this machine that this account may look at listens on port {port}")
        return cls(url, psutil.Process(process))

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)
