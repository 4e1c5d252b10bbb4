"""Pool processes that are started later inherit the connections of the main process, and must not keep them open."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from conventions.app import ConventionsApp
from tests.crash.crash_tasks import Append
from tests.crash.evidence import Runs
from tests.crash.server import Server
from tests.support import at_most, wait_until
from tests.workers import Installation, Worker

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fdinfo").is_dir(), reason="reads Linux's list of what a poll watches"
)

POOL = 2


def worker_pool(worker: Worker) -> set[int]:
    """The pool processes."""
    return {child.pid for child in worker.children()}


def lose_pool(worker: Worker) -> None:
    """Kill all pool processes, and wait for others."""
    before = worker_pool(worker)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(worker_pool(worker) - before) == POOL, 20, "the pool is whole again")


def done(installation: Installation, number: int) -> None:
    """Wait for the effect of a job."""
    wait_until(lambda: Runs(installation.folder).effects()[number] == 1, 20, "the job is done")


def has_its_connections(server: Server) -> bool:
    """Whether the worker hears of remote control, and waits for messages."""
    with server.client() as client:
        clients = client.client_list()
    return (
        len(clients) > 4 and any("P" in one["flags"] for one in clients) and any("b" in one["flags"] for one in clients)
    )


def dead_sockets(pid: int) -> Iterator[str]:
    """What a process polls although it has closed it: another process has it open still."""
    folder = Path(f"/proc/{pid}")
    names = {one.name: str(one.readlink()) for one in (folder / "fd").iterdir()}
    for number in [number for number, name in names.items() if name == "anon_inode:[eventpoll]"]:
        for line in (folder / "fdinfo" / number).read_text().splitlines():
            if line.startswith("tfd:"):
                words = line.replace(":", ": ").split()
                inode, watched = int(words[words.index("ino:") + 1], 16), names.get(words[1], "closed")
                if watched == "closed" or (watched.startswith("socket:") and watched != f"socket:[{inode}]"):
                    yield f"{words[1]}: socket {inode}, now {watched}"


def test_a_worker_takes_jobs_at_once_after_its_pool_and_its_connections_were_lost(
    installation: Installation, app: ConventionsApp, server: Server
) -> None:
    """Else the main process would hear for ever of a connection that is dead, and wait for it."""
    with installation.worker(f"--concurrency={POOL}") as worker:
        for turn in range(4):
            lose_pool(worker)
            # A cut at each look would keep the worker from having its connections back.
            wait_until(lambda: has_its_connections(server), 10, "the worker has its connections back")
            assert server.cut_connections("normal", "pubsub") > 3
            with at_most(1):
                Append.delay(turn, 0.01)
                done(installation, turn)
            assert not [*dead_sockets(worker.process.pid)]
