"""The supervisor with real processes: lines, restarts, reload, stop, and nothing left after a kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from conventions.stack.supervisor import Service, Supervisor, guardian
from tests.support import at_most, patient, wait_until

pytestmark = pytest.mark.processes

# Ends in order at SIGTERM after a job of the given length, as a worker does.
WORKER = """
import signal, sys, time
def leave(*_):
    time.sleep(float(sys.argv[1])); print("finished", flush=True); sys.exit(0)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell's background job inherits it ignored
print("ready", flush=True)
while True: time.sleep(1)
"""

# Starts a service and a grandchild under a guardian, tells their group, and waits to be killed.
STARTER = """
import sys, time
from conventions.stack.supervisor import Service, Supervisor, guardian
with guardian() as group:
    supervisor = Supervisor(group, lambda name, line: None)
    supervisor.start(Service("parent", lambda: ["sh", "-c", "trap '' TERM; sleep 61 & wait; wait"]))
    supervisor.start(Service("plain", lambda: ["sleep", "62"]))
    print(group, flush=True)
    supervisor.run(until=lambda: False)
"""


class Lines:
    """Keeps what the services write."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, name: str, line: str) -> None:
        """Take one line."""
        self.lines.append(f"{name}: {line}")


@pytest.fixture
def lines() -> Lines:
    """Where the lines go."""
    return Lines()


@pytest.fixture
def supervisor(lines: Lines) -> Iterator[Supervisor]:
    """A supervisor whose services end with the test."""
    with guardian() as group:
        supervisor = Supervisor(group, lines.write)
        yield supervisor
        supervisor.stop(lambda: 3)
    assert members(group) == []


def members(group: int) -> list[psutil.Process]:
    """The living processes of a process group."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def worker(seconds: float = 0, **options: object) -> Service:
    """A service that behaves like a worker with one job of this length."""
    return Service("worker", lambda: [sys.executable, "-c", WORKER, str(seconds)], **options)  # type: ignore[arg-type]


def test_the_services_run_in_the_guardians_group(supervisor: Supervisor, lines: Lines) -> None:
    """So that one signal reaches all of them and none of the terminal's."""
    supervisor.start(worker())
    wait_until(lambda: "worker: ready" in lines.lines, description="its first line")
    assert len(members(supervisor._group)) == 2  # the guardian and the service
    assert supervisor._group != os.getpgrp()


def test_nothing_is_left_after_a_kill() -> None:
    """Within 5 s of a kill -9 no process lives, neither one that ignores SIGTERM nor a grandchild."""
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    group = int(starter.stdout.readline())
    wait_until(lambda: len(members(group)) == 4, description="guardian, two services, one grandchild")
    starter.kill()
    starter.communicate()
    wait_until(lambda: not members(group), timeout=5, description="nothing left")


def test_a_service_that_dies_is_started_again_with_growing_waits(supervisor: Supervisor, lines: Lines) -> None:
    """The line tells its exit code; the waits double, so that it never spins."""
    service = Service("broken", lambda: [sys.executable, "-c", "print('no'); raise SystemExit(3)"])
    supervisor.start(service)
    started = time.monotonic()
    with at_most(5):
        supervisor.run(until=lambda: service.deaths == 3 or time.monotonic() - started > patient(10))
    assert time.monotonic() - started >= 3
    assert lines.lines == [
        "broken: no",
        "broken: ended with exit code 3; starts again in 1 s",
        "broken: no",
        "broken: ended with exit code 3; starts again in 2 s",
        "broken: no",
        "broken: ended with exit code 3; starts again in 4 s",
    ]


def test_the_wait_has_a_limit(supervisor: Supervisor, lines: Lines) -> None:
    """A service that died often waits 30 s, not for ever longer."""
    supervisor.start(Service("broken", lambda: ["false"], deaths=20))
    supervisor.run(until=lambda: bool(lines.lines))
    assert lines.lines == ["broken: ended with exit code 1; starts again in 30 s"]


def test_a_reload_starts_the_new_worker_while_the_old_one_finishes(supervisor: Supervisor, lines: Lines) -> None:
    """The old process keeps its job to the end and is not replaced again; others are left alone."""
    service = worker(1.0, stop_within=None, overlaps=True)
    other = Service("other", lambda: ["sleep", "60"])
    supervisor.start(service)
    supervisor.start(other)
    wait_until(lambda: lines.lines.count("worker: ready") == 1, description="the first worker")
    before, untouched = service.process, other.process
    supervisor.reload("worker")
    supervisor.run(until=lambda: lines.lines.count("worker: ready") == 2)
    assert service.process is not before
    assert service.finishing == [before]
    assert other.process is untouched
    supervisor.run(until=lambda: not service.finishing)
    assert lines.lines.count("worker: finished") == 1
    assert lines.lines.count("worker: ready") == 2
    assert service.alive


def test_a_service_that_must_be_alone_is_reloaded_after_the_old_one_has_ended(
    supervisor: Supervisor, lines: Lines
) -> None:
    """Two beats never run side by side."""
    service = worker(0.3)
    supervisor.start(service)
    wait_until(lambda: "worker: ready" in lines.lines, description="the first process")
    supervisor.reload("worker")
    supervisor.run(until=lambda: lines.lines.count("worker: ready") == 2)
    assert lines.lines[:2] == ["worker: ready", "worker: finished"]


def test_a_broken_service_is_tried_at_once_after_a_reload(supervisor: Supervisor, lines: Lines, tmp_path: Path) -> None:
    """A corrected file ends the wait."""
    script = tmp_path / "script.py"
    script.write_text("syntax error")
    service = Service("worker", lambda: [sys.executable, str(script)], deaths=10)
    supervisor.start(service)
    supervisor.run(until=lambda: service.due is not None)
    script.write_text(WORKER)
    supervisor.reload("worker")
    supervisor.run(until=lambda: "worker: ready" in lines.lines)
    assert service.deaths == 0, "it did not wait for its turn"


def test_stop_lets_jobs_finish_and_ends_the_phases_in_order(
    supervisor: Supervisor, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server, in the last phase, is there until the worker has finished its job; the user is told why it waits."""
    monkeypatch.setattr("conventions.stack.supervisor.JOBS_ARE_RUNNING", 0.2)
    server = Service("server", lambda: [sys.executable, "-c", WORKER, "0"], stop_phase=2)
    supervisor.start(server)
    supervisor.start(worker(1.0, stop_within=None))
    wait_until(lambda: len(lines.lines) == 2, description="both are ready")
    supervisor.stop()
    ends = [line for line in lines.lines if "finish" in line]
    assert ends[0].startswith("worker: finishes its running jobs")
    assert ends[1:] == ["worker: finished", "server: finished"]


def test_a_service_that_does_not_stop_is_killed(supervisor: Supervisor, lines: Lines) -> None:
    """One whose time is limited is killed when the time is over."""
    service = worker(60, stop_within=0.5)
    supervisor.start(service)
    wait_until(lambda: "worker: ready" in lines.lines, description="it runs")
    supervisor.stop()
    assert service.process is not None
    assert service.process.exit_code == -signal.SIGKILL


@pytest.mark.parametrize(("asked", "ended_by"), [(2, signal.SIGQUIT), (3, signal.SIGKILL)])
def test_a_second_request_does_not_wait_for_jobs(
    supervisor: Supervisor, lines: Lines, asked: int, ended_by: signal.Signals
) -> None:
    """The second Ctrl-C asks the worker to give its jobs back, the third kills it."""
    service = worker(60, stop_within=None)
    supervisor.start(service)
    wait_until(lambda: "worker: ready" in lines.lines, description="it runs")
    supervisor.stop(lambda: asked)
    assert service.process is not None
    assert service.process.exit_code == -ended_by
