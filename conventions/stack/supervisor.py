"""Starts the services of a stack, prints their output, restarts what dies, and stops all in order."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Self

from conventions.core.repeated_signal import SAME_PRESS

# Receives the output: called with the service's name and one line, from any thread.
Write = Callable[[str, str], None]

TICK_SECONDS = 0.05
LONGEST_WAIT = 30.0
# seconds in which an idle worker stops; one that still runs is busy.
JOBS_ARE_RUNNING = 3.0
# seconds of life after which the count of deaths starts again.
SETTLED_AFTER = 60.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def guardian(*inherited: int) -> Iterator[int]:
    """The process group for the services. All its processes end with the block, or with this process.

    Args:
        inherited: file descriptors to keep open until the group has ended.
    """
    read, write = os.pipe()
    script = Path(__file__).with_name("guardian.py")
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(script), str(read)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(read, *inherited),
        process_group=0,
    )
    os.close(read)
    try:
        yield process.pid
    finally:
        with suppress(BrokenPipeError):  # somebody killed the guardian
            os.write(write, b".")
        os.close(write)
        process.wait()


class StopSignals:
    """Counts Ctrl-C, SIGTERM and SIGHUP within the block; they do not end the process.

    Signals within half a second count once: `uv run` may repeat the Ctrl-C that the terminal has already sent. While
    `raising` is true, the next signal also raises KeyboardInterrupt in the main thread.
    """

    def __init__(self, raising: bool = False) -> None:
        self.count = 0
        self.raising = raising
        self._last = -SAME_PRESS

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        self.count += now - self._last >= SAME_PRESS
        self._last = now
        if self.raising:
            self.raising = False
            raise KeyboardInterrupt


class Process:
    """One run of a service."""

    def __init__(self, name: str, command: list[str], group: int, environment: Mapping[str, str], write: Write) -> None:
        self.started = time.monotonic()
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=group,
            env={**environment, "PYTHONUNBUFFERED": "1"},
        )
        self.pid = self._popen.pid
        self._reader = threading.Thread(target=self._read, args=(name, write), daemon=True, name=f"lines of {name}")
        self._reader.start()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; a negative number is the signal that ended it."""
        return self._popen.poll()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal. Does nothing if it has ended."""
        self._popen.send_signal(number)

    def finish_lines(self) -> None:
        """Wait for its last lines after its end."""
        self._reader.join(timeout=1)

    def _read(self, name: str, write: Write) -> None:
        assert self._popen.stdout is not None  # noqa: S101 - narrows the type: stdout is a pipe
        with self._popen.stdout as lines:
            for line in lines:
                if text := line.decode(errors="replace").rstrip():
                    write(name, text)


@dataclass
class Service:
    """A service that should run as long as the stack does.

    Args:
        name: its name in the output.
        command: makes the command line for each start.
        stop_phase: services stop in the order of this number; equal numbers stop together.
        stop_within: seconds between the request to stop and the kill; None: as long as its jobs run.
        overlaps: a new process may start while the old one finishes its jobs.
    """

    name: str
    command: Callable[[], list[str]]
    stop_phase: int = 0
    stop_within: float | None = 5.0
    overlaps: bool = False
    process: Process | None = None
    finishing: list[Process] = field(default_factory=list)
    deaths: int = 0
    due: float | None = None

    @property
    def alive(self) -> bool:
        """Whether its current process runs."""
        return self.process is not None and self.process.exit_code is None

    @property
    def running(self) -> list[Process]:
        """Every process of it that has not ended, the current one last."""
        processes = [*self.finishing, self.process] if self.process else self.finishing
        return [process for process in processes if process.exit_code is None]

    def retire(self) -> None:
        """Ask the current process to finish its jobs and end. The next one starts at once."""
        if self.process is not None and self.process.exit_code is None:
            self.process.send(signal.SIGTERM)
            self.finishing.append(self.process)
        self.process = None
        self.deaths = 0
        self.due = time.monotonic()


class Supervisor:
    """Keeps services running in one process group. Use it from one thread; only `reload` is safe from any thread."""

    def __init__(self, group: int, write: Write, environment: Mapping[str, str] = os.environ) -> None:
        self.services: list[Service] = []
        self._group = group
        self._write = write
        self._environment = environment
        self._reload = threading.Event()
        self._reloaded: tuple[str, ...] = ()

    def start(self, service: Service, delay: float = 0.0) -> None:
        """Start a service after `delay` seconds, and keep it running."""
        self.services.append(service)
        if delay:
            service.due = time.monotonic() + delay
        else:
            self._launch(service)

    def reload(self, *names: str) -> None:
        """Replace these services by new processes at the next tick; safe from any thread."""
        self._reloaded = names
        self._reload.set()

    def run(self, until: Callable[[], bool]) -> None:
        """Watch the services until `until()` is true. It is asked every 50 ms."""
        while not until():
            self.tick()
            time.sleep(TICK_SECONDS)

    def tick(self) -> None:
        """Restart dead services when they are due, and do a requested reload."""
        if self._reload.is_set():
            self._reload.clear()
            for service in self.services:
                if service.name in self._reloaded:
                    service.retire()
        now = time.monotonic()
        for service in self.services:
            self._note_finished(service)
            if service.process is not None and service.process.exit_code is not None:
                self._note_death(service, service.process, now)
            if service.due is not None and service.due <= now and (service.overlaps or not service.finishing):
                self._launch(service)

    def stop(self, signals: Callable[[], int] = lambda: 1) -> None:
        """Stop the services, phase by phase.

        Args:
            signals: how often the user asked to stop. From 2 on, jobs are not waited for; from 3 on, all is killed.
        """
        for phase in sorted({service.stop_phase for service in self.services}):
            stopping = [service for service in self.services if service.stop_phase == phase]
            for service in stopping:
                if service.alive and service.process is not None:
                    service.process.send(signal.SIGTERM)
            self._await_end(stopping, signals)

    def _await_end(self, stopping: list[Service], signals: Callable[[], int]) -> None:
        started, asked, said = time.monotonic(), 1, False
        while running := [(service, process) for service in stopping for process in service.running]:
            waited = time.monotonic() - started
            before, asked = asked, max(asked, signals())
            for service, process in running:
                if asked >= 3 or (service.stop_within is not None and waited > service.stop_within):
                    process.send(signal.SIGKILL)
                elif service.stop_within is None and asked > before:
                    process.send(signal.SIGQUIT)
                elif service.stop_within is None and waited > JOBS_ARE_RUNNING and not said:
                    said = True
                    self._write(service.name, "finishes its running jobs; Ctrl-C again gives them back to the queue")
            time.sleep(TICK_SECONDS)
        for service in stopping:
            if service.process is not None:
                service.process.finish_lines()

    def _launch(self, service: Service) -> None:
        service.due = None
        service.process = Process(service.name, service.command(), self._group, self._environment, self._write)

    def _note_finished(self, service: Service) -> None:
        for process in [process for process in service.finishing if process.exit_code is not None]:
            service.finishing.remove(process)
            process.finish_lines()
            self._write(service.name, f"the old {service.name} has finished")

    def _note_death(self, service: Service, process: Process, now: float) -> None:
        process.finish_lines()
        service.process = None
        service.deaths = 1 if now - process.started > SETTLED_AFTER else service.deaths + 1
        wait = min(LONGEST_WAIT, 2.0 ** (service.deaths - 1))
        service.due = now + wait
        self._write(service.name, f"ended with exit code {process.exit_code}; starts again in {wait:g} s")
