"""A process stands still between asking for claims and beginning their jobs, for longer than their leases."""

import os
import signal
from collections import Counter
from collections.abc import Callable

import pytest

from conventions.app import ConventionsApp
from tests.crash import standing_tasks
from tests.crash.lane_crash_tasks import ALONE, Lines
from tests.crash.standing_tasks import STANDING, STANDS_AT, Single, Together
from tests.crash.tempo import QUICK
from tests.support import wait_until
from tests.workers import Installation, wait_until_empty

ONE = ("-X", "long", "-c", "1")
JOBS = 300


@pytest.fixture
def task_module() -> str:
    """The tasks of these tests."""
    return standing_tasks.__name__


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
        last = wait_until(lines.stood, 20, "a process stands still")
        (first,) = [worker for worker in workers if worker.process.pid == last.main]
        (second,) = [worker for worker in workers if worker is not first]
        os.kill(last.main, signal.SIGSTOP)
        wait_until_empty(app, 40)
        assert lines.starts() == Counter(range(JOBS))
        for process in (last.pid, last.main):
            os.kill(process, signal.SIGCONT)
        assert second.stop() == 0
        task.delay(JOBS)  # it comes after all that was asked for before
        wait_until(lambda: lines.last_of(last.pid).number == JOBS, 20, "the process has gone on")
        wait_until_empty(app, 40)
        assert first.process.poll() is None
    show(f"{task.name} {STANDS_AT}: its process began with {last.left} behind it")
    assert (last.left == ALONE) == (task is Single)
    assert lines.starts() == Counter(range(JOBS + 1))
