"""A process stands still between asking for claims and beginning their jobs, for longer than their leases."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from conventions.app import ConventionsApp
from conventions.broker import Sizes
from tests.crash import standing_tasks
from tests.crash.lane_crash_tasks import ALONE, STOOD, Lines, state_of
from tests.crash.standing_tasks import STANDING, STANDS_AT, Single, Together
from tests.crash.tempo import QUICK
from tests.support import wait_until
from tests.workers import Installation

ONE = ("-X", "long", "-c", "1")
JOBS = 300


@pytest.fixture
def task_module() -> str:
    """The tasks of these tests."""
    return standing_tasks.__name__


def stood(folder: Path) -> int:
    """The process that stands still."""
    path = folder / STOOD
    pid = int(path.read_text(encoding="ascii") or 0) if path.exists() else 0
    return pid if pid and state_of(pid) == "T" else 0


def wait_until_drained(app: ConventionsApp) -> None:
    """Wait until nothing is left."""
    wait_until(lambda: app.broker.sizes("immediate") == Sizes(0, 0, 0), 40, "the queue is empty")


@pytest.mark.parametrize("task", [Together, Single])
def test_no_job_begins_that_another_worker_has_done(
    task: type[Together], installation: Installation, app: ConventionsApp, show: Callable[[str], None]
) -> None:
    """The answer that it reads when it goes on is an old one."""
    QUICK.install(installation)
    (installation.folder / STANDING).touch()
    task.enqueue_many({"number": number} for number in range(JOBS))
    lines = Lines(installation.folder)
    with installation.workers(ONE, ONE) as workers:
        pid = wait_until(lambda: stood(installation.folder), 20, "a process stands still")
        last = lines.last_of(pid)
        (first,) = [worker for worker in workers if worker.process.pid == last.main]
        (second,) = [worker for worker in workers if worker is not first]
        os.kill(last.main, signal.SIGSTOP)
        wait_until_drained(app)
        assert lines.starts() == Counter(range(JOBS))
        for process in (pid, last.main):
            os.kill(process, signal.SIGCONT)
        assert second.stop() == 0
        task.delay(JOBS)  # it comes after all that was asked for before
        wait_until(lambda: lines.last_of(pid).number == JOBS, 20, "the process has gone on")
        wait_until_drained(app)
        assert first.process.poll() is None
    show(f"{task.name} {STANDS_AT}: its process began with {last.left} behind it")
    assert (last.left == ALONE) == (task is Single)
    assert lines.starts() == Counter(range(JOBS + 1))
