"""The recorder of a worker is watched by the worker's main process: killed, frozen, unable to begin; and what is late is told."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from conventions import ImmediateTask
from conventions.core.lease_timings import USUAL
from conventions.recording import lag_warning, recorder_keeper, recorder_process
from conventions.recording.recorder_keeper import Keeper
from conventions.storage.redis_store import Store
from tests.databases import FORKS
from tests.recorder_processes import recorded
from tests.support import wait_until
from tests.workers import Installation, Worker

pytestmark = FORKS

IMPATIENT = "TESTS_IMPATIENT_KEEPER"
if IMPATIENT in os.environ:  # in the worker
    recorder_keeper.LOOK_EVERY, recorder_keeper.STANDS_AFTER = 0.25, 12
    lag_warning.LATE, lag_warning.LAG_EVERY = 1.0, 0.2


class Note(ImmediateTask):
    """Do nothing."""

    not_idempotent = "a test"

    def run(self) -> None:
        """As above."""


def one_recorder(worker: Worker, but: int = 0) -> psutil.Process:
    """The one recorder that lives, when it is not the one with this process id."""
    return wait_until(
        lambda: found[0] if len(found := worker.recorders()) == 1 and found[0].pid != but else None, 20, "a recorder"
    )


def no_zombies(worker: Worker) -> bool:
    """Whether nothing that has ended waits for the main process to look at it."""
    for child in psutil.Process(worker.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # looked at since
            if child.status() == psutil.STATUS_ZOMBIE:
                return False
    return True


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_whatever_is_killed_jobs_go_on_to_be_recorded(module_installation: Installation, pool: str) -> None:
    """Each child in turn, the first one first; a recorder that stands still; one that was asked to end while jobs go on."""
    with (
        module_installation.application() as app,
        module_installation.worker("--pool", pool, "-c", "2", **{IMPATIENT: "1"}) as worker,
    ):
        done = recorded(app.database)

        def records() -> None:
            nonlocal done
            done += 1
            Note.delay()
            wait_until(lambda: recorded(app.database) == done, 30, f"{done} jobs are recorded")

        records()
        for child in sorted(psutil.Process(worker.process.pid).children(), key=lambda one: one.create_time()):
            child.kill()
            wait_until(lambda: no_zombies(worker), 30, "no zombie is left")
            records()
        assert worker.output.count("the recorder (process ") == 1
        worker.wait_for("has ended (signal 9): another one is started now")

        frozen = one_recorder(worker)
        frozen.suspend()
        one_recorder(worker, but=frozen.pid)
        worker.wait_for(f"the recorder (process {frozen.pid}) stands still: it is killed")
        records()

        one_recorder(worker).terminate()  # as where a service manager tells every process of a worker
        wait_until(lambda: len(worker.recorders()) == 1, 20)
        records()

        last = one_recorder(worker)
        os.kill(worker.process.pid, signal.SIGKILL)
        wait_until(lambda: not last.is_running() or last.status() == psutil.STATUS_ZOMBIE, 5, "it ends with its worker")


def test_what_is_recorded_late_is_told(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> None:
    """By the worker's main process, with the number; not again at once."""
    # Of its own: where a recorder was killed, an event that it has recorded may wait to be recorded again.
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path)}
    installation = Installation(tmp_path, [__name__], [Path(__file__).parent], **settings)
    with installation.application() as app, installation.worker("-c", "1", **{IMPATIENT: "1"}) as worker:
        with closing(app.database.engine.raw_connection()) as lock:
            lock.execute("BEGIN IMMEDIATE")
            Note.delay()
            worker.wait_for("1 events are not recorded in SQL yet, the oldest for ")
            lock.rollback()
        wait_until(lambda: recorded(app.database) == 1, 30)
        assert worker.output.count("are not recorded in SQL yet") == 1


def test_check_tells_of_late_events(installation: Installation) -> None:
    """From half a minute on."""
    with installation.application() as app:
        app.store.redis.xadd(app.journal.key, {"event": "{}"}, id="1-1")
    assert "1 events are not recorded in SQL yet, the oldest for " in installation.run("check").stdout


def test_a_recorder_that_cannot_begin_is_tried_again_after_a_growing_wait(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And not in a loop that takes a processor."""
    monkeypatch.setattr(recorder_keeper, "FIRST_WAIT", 0.05)
    # Without a database it would record; without a journal it cannot begin.
    app: Any = SimpleNamespace(store=store, timings=USUAL)
    keeper = Keeper(app)
    monkeypatch.setattr(recorder_process, "Recorder", lambda *_, **__: 1 / 0)
    os.kill(keeper.pid, signal.SIGKILL)
    waits: list[str] = []

    def ends() -> bool:
        keeper.look()
        waits[:] = [record.getMessage().partition("is started ")[2].partition(";")[0] for record in caplog.records]
        return len(waits) == 5

    began = time.monotonic()
    wait_until(ends, 20, "five have ended")
    keeper.stop()
    assert waits[0] == "now"
    assert time.monotonic() - began > 0.05 + 0.1 + 0.2
