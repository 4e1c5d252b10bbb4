"""Starts and stops the processes of a system, each in a session of its own."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

import psutil

from bench.optimisations import WITHOUT
from bench.program import RABBITMQ, URL
from bench.rabbitmq import RabbitMQ
from bench.records import PATH
from bench.systems import System

ROOT = Path(__file__).parents[1]
STOP_SECONDS = 20.0
GONE_SECONDS, GONE_POLL = 2.0, 0.005
PATIENCE = 30.0  # seconds without any sign
SLOWEST_SEND = 0.01  # seconds for one job


class SystemFailed(Exception):
    """A system did not start, or did not do its jobs; the message says what its process said last."""


class Site:
    """Where the processes of one system run.

    Args:
        system: what runs.
        url: the server's address.
        folder: its own; processes run and log there.
        rabbitmq: where its messages wait, if it is not that server.
    """

    def __init__(self, system: System, url: str, folder: Path, rabbitmq: RabbitMQ | None = None) -> None:
        self.system = system
        self.rabbitmq = rabbitmq
        self.folder = folder
        self.records = folder / "records"
        self.log = folder / "log"
        self._url = url

    def start(self, *verb: str, talking: bool = False) -> subprocess.Popen[str]:
        """Start the program with a verb, with pipes where it is talked to; the rest goes to the log.

        Raises:
            SystemFailed: the command is not there.
        """
        outer = {name: value for name, value in os.environ.items() if not name.startswith("CONVENTIONS_")}
        path = os.pathsep.join(filter(None, (str(self.system.root or ROOT), os.environ.get("PYTHONPATH"))))
        variables = {URL: self._url, PATH: str(self.records), "PYTHONPATH": path, WITHOUT: self.system.without}
        if self.rabbitmq is not None:
            variables[RABBITMQ] = self.rabbitmq.url
        with self.log.open("a") as log:
            try:
                return subprocess.Popen(
                    [*self.system.command, self.system.program or self.system.name, *verb],
                    cwd=self.folder,
                    env=outer | variables,
                    text=True,
                    start_new_session=True,
                    stdin=subprocess.PIPE if talking else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if talking else log,
                    stderr=log,
                )
            except OSError as error:
                raise SystemFailed(f"{self.system.command[0]}: {error.strerror}") from error

    def prepare(self) -> None:
        """Make what the system needs once. Raises: SystemFailed."""
        process = self.start("prepare")
        try:
            if process.wait(timeout=120):
                raise self.failed("it could not be prepared")
        except subprocess.TimeoutExpired:
            raise self.failed("its preparation did not end") from None
        finally:
            end(process)

    def failed(self, what: str) -> SystemFailed:
        """The error to raise, with the last line of the log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n") if self.log.exists() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return SystemFailed(f"{what}: {last}")


class Sender:
    """A process that sends jobs; ready when the block begins. Raises: SystemFailed.

    Attributes:
        has: what the system has beside single jobs, `bulk` and `batch`; known within the block.
    """

    def __init__(self, site: Site, *options: str) -> None:
        self.has: frozenset[str] = frozenset()
        self._site = site
        self._process = site.start("send", *options, talking=True)
        self._input, self._output = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)

    def __enter__(self) -> Self:
        """Wait until it has sent job 0."""
        try:
            self.has = frozenset(name for name, there in self._answer(PATIENCE).items() if there)
        except BaseException:
            end(self._process)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its input and wait for its end."""
        with suppress(BrokenPipeError):
            self._input.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        end(self._process)

    def send(
        self, first: int, count: int, pause: float = 0, *, sleep: float = 0, how: str = "single"
    ) -> dict[str, float]:
        """Send jobs, one by one or in bulk, or run a batch; returns the `seconds` and `cpu` seconds. Raises: SystemFailed."""
        request = {"first": first, "count": count, "pause": pause, "sleep": sleep, "how": how}
        with suppress(BrokenPipeError):
            self._input.write(json.dumps(request) + "\n")
            self._input.flush()
        return self._answer(PATIENCE + count * (pause + SLOWEST_SEND))

    def _answer(self, seconds: float) -> dict[str, float]:
        ready = select.poll()  # `select` takes no file beyond the thousandth
        ready.register(self._output, select.POLLIN)
        if not ready.poll(seconds * 1000):
            raise self._site.failed(f"its sender did not answer for {seconds:.0f} s")
        line = self._output.readline()
        if not line:
            raise self._site.failed("its sender ended")
        answer: dict[str, float] = json.loads(line)
        return answer


class Worker:
    """A worker with its pool; `started` is when, on the monotonic clock. Raises: SystemFailed."""

    def __init__(self, site: Site, *options: str) -> None:
        self.started = time.monotonic()
        self._process = site.start("work", "--pool", site.system.pool, *options)

    def __enter__(self) -> Self:
        """It starts when it is made."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it: what it would do in order concerns nobody after the last job."""
        self.kill()

    def kill(self) -> None:
        """Kill it and its children, and wait until all are gone: one that waits for a job would still take it."""
        family = self._family()
        end(self._process)
        deadline = time.monotonic() + GONE_SECONDS
        while time.monotonic() < deadline and not all(_is_gone(process) for process in family):
            time.sleep(GONE_POLL)

    def stop(self) -> None:
        """Let it end in order."""
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let none of its processes do anything within the block."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

    @property
    def alive(self) -> bool:
        """Whether its main process runs."""
        return self._process.poll() is None

    def cpu(self) -> float:
        """Seconds of processor time that it and its living children have used."""
        return _cpu(self._family())

    def recorder_cpu(self) -> float:
        """The same, of its recorder alone, where it has one."""
        return _cpu([one for one in self._children(recursive=True) if _is_recorder(one)])

    def _family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [psutil.Process(self._process.pid), *self._children(recursive=True)]
        return []

    def _children(self, *, recursive: bool) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children(recursive)
        return []


def _cpu(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _is_recorder(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.name() == "recorder"
    return False


def _is_gone(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE  # its files are closed
    return True


def end(process: subprocess.Popen[str]) -> None:
    """Kill what is left of a process and its children, and close its pipes."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
