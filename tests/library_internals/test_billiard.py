"""What billiard does not document, Celery's pool, and a worker that runs: another release fails here, with what to look at."""

import json
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from billiard import common
from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated, WorkerLostError
from billiard.pool import ApplyResult, Pool
from celery.exceptions import Ignore, Reject, Retry

from conventions.library_internals import billiard as internals
from tests.library_internals.seam import Seam
from tests.library_internals.watched_worker import Watched
from tests.support import wait_until
from tests.workers import Installation, acting_through

SEAMS = [
    Seam("billiard.pool:soft_timeout_sighandler", "(signum, frame)", "93d81a2df4", "execution/soft_time_limit.py"),
    Seam("billiard.pool:Pool.did_start_ok", "(self)", "532bbf1451", "library_internals/billiard.py: tolerate_kills"),
    Seam("billiard.pool:Pool.maintain_pool", "(self)", "1a9d02b1f1", "worker/pool_step.py"),
    Seam("billiard.pool:Pool._join_exited_workers", "(self, shutdown=)", "48f79e334b", "worker/pool_step.py, worker/shutdown.py"),
    Seam("billiard.pool:Pool.mark_as_worker_lost", "(self, job, exitcode)", "88495c8b68", "library_internals/billiard.py: HOW_IT_ENDED"),
    Seam("billiard.pool:ApplyResult._set_terminated", "(self, signum=)", "ddae1eb959", "library_internals/billiard.py: worker_lost"),
    Seam("billiard.pool:TimeoutHandler.on_hard_timeout", "(self, job)", "8a58f4fcc8", "worker/request.py, worker/pool_step.py"),
    Seam("billiard.pool:TimeoutHandler.on_soft_timeout", "(self, job)", "2f511e46ea", "execution/soft_time_limit.py"),
    Seam("billiard.pool:ApplyResult", "", "2f4011db62", "library_internals/billiard.py, worker/request.py"),
    Seam("billiard.common:human_status", "(status)", "cefd80608a", "library_internals/billiard.py: HOW_IT_ENDED"),
    Seam("billiard.common:_shutdown_cleanup", "(signum, frame)", "8c533c50cf", "library_internals/billiard.py: KILLED"),
    Seam("billiard.einfo:ExceptionInfo", "", "5ef8169bbb", "library_internals/billiard.py: error_of, fast_lane/run_group.py"),
    Seam("celery.concurrency.asynpool:AsynPool.__init__", "", "34ce737e61", "library_internals/billiard.py: write_waiting"),
    Seam("celery.concurrency.asynpool:AsynPool._on_hard_timeout", "(self, job)", "879ee674e7", "library_internals/billiard.py: HardLimits"),
    Seam("celery.concurrency.asynpool:AsynPool._create_timelimit_handlers", "(self, hub)", "b73c99baf6", "worker/pool_step.py"),
    Seam("celery.concurrency.asynpool:AsynPool._create_write_handlers", "", "48bef2bf93", "library_internals/billiard.py: write_waiting, written_kept"),
    Seam("celery.concurrency.asynpool:AsynPool.flush", "(self)", "98619605fe", "library_internals/billiard.py: written_kept"),
    Seam("celery.concurrency.asynpool:_get_job_writer", "(job)", "31b4fff0a3", "library_internals/billiard.py: written_kept"),
    Seam("celery.concurrency.prefork:TaskPool.on_start", "(self)", "4534edb0bb", "worker/pool_step.py"),
    Seam("celery.concurrency.base:apply_target", "", "64bb22332b", "worker/pool_step.py: Hearing"),
    Seam("celery.concurrency.thread:TaskPool.on_apply", "", "96c0c9ca45", "worker/pool_step.py: Hearing"),
]  # fmt: skip


@pytest.mark.parametrize("seam", SEAMS, ids=str)
def test_a_function_is_what_it_was(seam: Seam) -> None:
    """It is there, takes these arguments, and does what it did when somebody looked at it."""
    assert not seam.fault()


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (-9, ("9 (SIGKILL)", None)),
        (-250, ("250", None)),
        (1, (None, "1")),
        (0, (None, "0")),
        (-15, ("15 (SIGTERM)", None)),
    ],
)
def test_how_a_process_ended_is_read(status: int, found: tuple[str | None, str | None]) -> None:
    """In the words of billiard's error."""
    told: list[Any] = []
    job = SimpleNamespace(_job=17, _set=lambda _, value: told.append(value[1]))
    Pool.mark_as_worker_lost(SimpleNamespace(), job, status)
    error = internals.error_of(told[0])
    assert isinstance(error, WorkerLostError)
    match = internals.HOW_IT_ENDED.search(str(error))
    assert match is not None, error
    assert (match["signal"], match["status"]) == found


@pytest.mark.parametrize(("status", "found"), [(-9, ("9 (SIGKILL)", None)), (1, (None, "1"))])
def test_the_end_of_a_process_that_was_told_to_end_is_read(status: int, found: tuple[str | None, str | None]) -> None:
    """In the same words, where another job was meant."""
    told: list[Any] = []
    ApplyResult._set_terminated(SimpleNamespace(_set=lambda _, value: told.append(value[1])), status)
    error = internals.error_of(told[0])
    assert isinstance(error, Terminated)
    match = internals.HOW_IT_ENDED.search(str(internals.worker_lost(error)))
    assert match is not None
    assert (match["signal"], match["status"]) == found


def test_the_status_of_a_process_that_is_told_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal's number, and 256 less."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(common, "_should_have_exited", [False])
    try:
        with pytest.raises(SystemExit) as ended:
            common._shutdown_cleanup(signal.SIGTERM, None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == signal.SIGTERM - 256
    assert ended.value.code in internals.KILLED
    assert {0, 1, -1, 256}.isdisjoint(internals.KILLED)


def test_the_error_of_a_job() -> None:
    """Also one that came from a process, with its traceback."""
    error = ValueError("no")
    try:
        raise error
    except ValueError:
        info = ExceptionInfo()
    assert internals.error_of(info) is error
    assert internals.error_of(pickle.loads(pickle.dumps(info))).args == ("no",)


@pytest.mark.parametrize(
    ("error", "internal", "found"),
    [
        (ValueError(), False, False),
        (ConnectionError("of Celery's own work"), True, True),
        (Reject(requeue=True), True, False),
        (Ignore(), True, False),
        (Retry(), True, False),
    ],
)
def test_whose_error_it_was(error: Exception, internal: bool, found: bool) -> None:
    """Celery says so itself, also of what came from a process."""
    with pytest.raises(type(error)) as raised:
        raise error
    info = ExceptionInfo((raised.type, raised.value, raised.tb), internal=internal)
    assert internals.raised_by_celery(info) is found
    assert internals.raised_by_celery(pickle.loads(pickle.dumps(info))) is found


def test_pools_without_processes_have_no_jobs() -> None:
    """As those of threads, and a pool that has stopped."""
    for pool in (SimpleNamespace(), SimpleNamespace(_pool=None), SimpleNamespace(_pool=[])):
        assert internals.pool_of(pool) is None
        assert internals.pids_of(pool) == []
        assert internals.open_jobs(pool) == {}
        internals.tolerate_kills(pool)
        internals.write_waiting(pool, SimpleNamespace())
        with internals.written_kept(pool):
            pass
    assert internals.own_index() == -1, "this is no process of a pool"


@pytest.fixture(scope="module")
def facts(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What a job, and the main process of its worker, see while it runs, and its id."""
    folder = tmp_path_factory.mktemp("facts")
    addresses = {"broker_url": valkey_url, "database_url": new_database(folder)}
    installation = Installation(folder, [Watched.__module__], (), **addresses)
    with (
        installation.worker("--concurrency=2", WATCHED_FOLDER=str(folder)),
        installation.application() as app,
        acting_through(app),
    ):
        sent = Watched.delay(folder=folder)
        wait_until((folder / "worker").exists, timeout=30)
        (folder / "go").touch()
        return {"sent": {"id": sent.id}} | {name: json.loads((folder / name).read_text()) for name in ("job", "worker")}


def test_what_a_job_sees(facts: dict[str, dict[str, Any]]) -> None:
    """Its place in the pool, itself as the running task, and our handler of soft limits in place of billiard's."""
    job = facts["job"]
    assert job["index"] in (0, 1)
    for name in ("is top", "its own", "soft limit is ours", "soft limit was billiard's", "ignored", "application"):
        assert job[name], name


def test_what_the_main_process_sees_of_the_pool(facts: dict[str, dict[str, Any]]) -> None:
    """Its processes, the job that one of them has, and how it is handed over."""
    job, main = facts["job"], facts["worker"]
    assert main["kinds"] == [True, False, "AsynPool"]
    assert len(main["pids"]) == 2
    assert job["pid"] in main["pids"]
    assert set(main["children"]) >= set(main["pids"])
    assert main["starts well"] == [True, "tolerate_kills.<locals>.<lambda>"]
    assert main["job"]["pid"] == job["pid"]
    assert main["job"]["destinations"] == [job["pid"]] * 2, "also before it has said so"
    assert 0 <= main["job"]["age"] < 60
    assert main["job"]["is written"]
    assert main["job"]["is its key"]
    assert not main["job"]["writer"], "it was written to its end"
    assert main["limit"] == "SettlingFirst"
    assert main["buffer"] == [0, True]
    assert main["writes"]


def test_what_the_main_process_sees_of_itself(facts: dict[str, dict[str, Any]]) -> None:
    """Consumer, request, channel and loop, as the files of `worker/`, `transport/` and `fast_lane/` take them."""
    job, main = facts["job"], facts["worker"]
    assert main["semaphore"] == [True, 2, 1]
    assert main["controller"] == [None, False, True]
    assert main["consumer"] == ["defaultdict", False, True, ["worker"], 0, 2, 1]
    assert main["request"] == [facts["sent"]["id"], job["pid"], True, False, False, False]
    assert main["channel"] == [1, 0, "redis"]
    assert main["in poll"] == [True, True]
    assert main["poller"] == [True, "Poller"]
