"""A chaos run: two workers, a server of their own, jobs, and everything breaks by a plan."""

import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field

from conventions.app import ConventionsApp
from tests.crash.evidence import Runs, unrecorded
from tests.crash.plan import Fault
from tests.crash.server import Breakable
from tests.crash.tempo import Tempo
from tests.support import wait_until
from tests.workers import Installation, Worker

WORKERS = 2
POOL = 2


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that happened, and what was in progress in the processes that it hit."""

    fault: Fault
    at: float
    pids: frozenset[int]
    in_progress: frozenset[int]


@dataclass(slots=True)
class Chaos:
    """One run; `start`, `strike` for each fault, `finish`."""

    installation: Installation
    servers: Sequence[Breakable]  # one, or the broker and the store
    app: ConventionsApp
    tempo: Tempo
    pool: str = "prefork"
    workers: list[Worker] = field(default_factory=list)
    every: list[Worker] = field(default_factory=list)
    struck: list[Struck] = field(default_factory=list)
    ended_pids: set[int] = field(default_factory=set)

    def start(self) -> None:
        """Start the workers."""
        self.workers = [self._new_worker() for _ in range(WORKERS)]
        for worker in self.workers:
            worker.wait_until_ready()

    def _new_worker(self) -> Worker:
        name = f"--hostname=w{len(self.every)}@%h"
        command = self.installation.celery(
            "worker", "--loglevel=INFO", name, f"--concurrency={POOL}", f"--pool={self.pool}"
        )
        worker = Worker(self.installation, command, {})
        self.every.append(worker)
        return worker

    def stop(self) -> None:
        """Stop the workers in good order."""
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            wait_for_stop(worker)

    def close(self) -> None:
        """Kill whatever runs."""
        for worker in self.every:
            worker.kill()

    def strike(self, fault: Fault) -> None:
        """Let it happen, and put things right again."""
        for worker in self.workers:
            assert worker.process.poll() is None, f"a worker ended by itself before {fault}\n{worker.output}"
        METHODS[fault.kind](self, fault)

    def _runs(self) -> Runs:
        return Runs(self.installation.folder)

    def _pids(self, worker: Worker) -> set[int]:
        return self._runs().processes_of(worker.process.pid) - self.ended_pids

    def _record(self, fault: Fault, pids: set[int], at: float) -> Struck:
        waiting = unrecorded(self.workers[fault.victim].output) if pids else ()
        struck = Struck(fault, at, frozenset(pids), frozenset(self._runs().in_progress(pids, at, waiting)))
        self.struck.append(struck)
        return struck

    def _replace(self, fault: Fault) -> None:
        self.workers[fault.victim] = self._new_worker()
        self.workers[fault.victim].wait_until_ready()

    def _busy_pids(self, worker: Worker) -> list[int]:
        """The pool processes that run a job, as soon as one does; empty when none does for a while."""
        pids = self._pids(worker)
        with suppress(AssertionError):
            return wait_until(lambda: [line.pid for line in self._runs().running_in(pids)], 1, "a job runs")
        return []

    # What happens.

    def _kill_worker(self, fault: Fault) -> None:
        worker = self.workers[fault.victim]
        self._busy_pids(worker)
        worker.kill()
        pids = self._pids(worker)
        self._record(fault, pids, time.monotonic())
        self.ended_pids |= pids
        self._replace(fault)

    def _kill_main_process(self, fault: Fault) -> None:
        worker = self.workers[fault.victim]
        self._busy_pids(worker)
        worker.process.kill()
        worker.process.wait()
        pids = self._pids(worker)
        self._record(fault, pids, time.monotonic())
        self._replace(fault)
        wait_until(lambda: not group_exists(worker.process.pid), 30, "the pool and recorder of a dead worker are gone")
        self.ended_pids |= pids

    def _kill_child(self, fault: Fault) -> None:
        busy = self._busy_pids(self.workers[fault.victim])
        if not busy:
            return
        with suppress(ProcessLookupError):
            os.kill(busy[0], signal.SIGKILL)
        self._record(fault, {busy[0]}, time.monotonic())
        self.ended_pids.add(busy[0])

    def _server(self, fault: Fault) -> Breakable:
        return self.servers[fault.victim % len(self.servers)]

    def _kill_server(self, fault: Fault) -> None:
        self._server(fault).kill()
        self._record(fault, set(), time.monotonic())
        pause(fault.lasts)
        self._server(fault).start()

    def _stop_server(self, fault: Fault) -> None:
        self._server(fault).freeze()
        self._record(fault, set(), time.monotonic())
        pause(fault.lasts * 2)
        self._server(fault).thaw()

    def _cut_connections(self, fault: Fault) -> None:
        self._server(fault).cut_connections("normal", "pubsub")
        self._record(fault, set(), time.monotonic())

    def _freeze_worker(self, fault: Fault) -> None:
        worker = self.workers[fault.victim]
        self._busy_pids(worker)
        self._stop_where_it_is(worker)
        try:
            pids = self._pids(worker)
            struck = self._record(fault, pids, time.monotonic())
            held = {line.number for line in self._runs().running_in(pids)}
            self._wait_for_recovery(held, struck)
            pause(fault.lasts)
        finally:
            os.killpg(worker.process.pid, signal.SIGCONT)

    def _wait_for_recovery(self, held: set[int], struck: Struck) -> None:
        """Raises: AssertionError, with what the servers and the workers say meanwhile."""
        try:
            wait_until(
                lambda: self._runs().recoveries(held, set(struck.pids), struck.at).keys() >= held,
                self.tempo.recovery * 2,
                f"what a frozen worker ran is run elsewhere: {held}",
            )
        except AssertionError as late:
            lines = [line for line in self._runs().lines if line.number in held]
            left = [one for server in self.servers for one in server.left()]
            said = "\n".join(worker.output[-6000:] for worker in self.workers)
            raise AssertionError(f"{late}\nits lines: {lines}\nthe servers: {left}\nthe workers:\n{said}") from late

    def _stop_where_it_is(self, worker: Worker) -> None:
        for _ in range(50):
            os.killpg(worker.process.pid, signal.SIGSTOP)
            if self._database_is_free():
                return
            # It is SQLite's one writer just now, for which the other worker would have to wait.
            os.killpg(worker.process.pid, signal.SIGCONT)
            pause(0.02)
        raise AssertionError("the worker is always in the middle of a transaction")

    def _database_is_free(self) -> bool:
        path = self.app.database.url.database
        assert path is not None
        with closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return False
        return True

    def _restart_worker(self, fault: Fault) -> None:
        worker = self.workers[fault.victim]
        self._busy_pids(worker)
        worker.process.terminate()
        at = time.monotonic()
        wait_for_stop(worker)
        self._record(fault, set(), at)
        self.ended_pids |= self._pids(worker)
        self._replace(fault)

    def _restart_worker_hurriedly(self, fault: Fault) -> None:
        worker = self.workers[fault.victim]
        self._busy_pids(worker)
        worker.process.terminate()
        pause(0.02)
        with suppress(ProcessLookupError):
            worker.process.terminate()
        at = time.monotonic()
        wait_for_stop(worker)
        pids = self._pids(worker)
        self._record(fault, pids, at)
        self.ended_pids |= pids
        self._replace(fault)


METHODS: dict[str, Callable[[Chaos, Fault], None]] = {
    "kill worker": Chaos._kill_worker,
    "kill main process": Chaos._kill_main_process,
    "kill child": Chaos._kill_child,
    "kill server": Chaos._kill_server,
    "stop server": Chaos._stop_server,
    "cut connections": Chaos._cut_connections,
    "freeze worker": Chaos._freeze_worker,
    "restart worker": Chaos._restart_worker,
    "restart worker hurriedly": Chaos._restart_worker_hurriedly,
}


def pause(seconds: float) -> None:
    """Let time pass, by the plan."""
    threading.Event().wait(seconds)


def wait_for_stop(worker: Worker, timeout: float = 20) -> None:
    """Wait until a worker that was told to has ended in good order; else say where it hangs."""
    try:
        status = worker.process.wait(timeout)
    except subprocess.TimeoutExpired:
        worker.process.send_signal(signal.SIGUSR2)
        worker.wait_for("most recent call first", 5)
        pause(0.5)
        raise AssertionError(f"a worker does not stop: {worker.output[-20000:]}") from None
    assert status == 0, worker.output


def group_exists(pid: int) -> bool:
    """Whether a process group has members."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True
