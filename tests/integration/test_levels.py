"""How things stand, while real workers run: queues, workers and running jobs; and what is said of those that are gone."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from conventions.app import ConventionsApp
from conventions.metrics import worker_reports
from conventions.metrics.known_series import known_names
from conventions.metrics.state_now import REDIS_WITHIN, LevelReader, Levels
from conventions.metrics.worker_reports import WorkerReports
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from tests.integration.levels_tasks import Far, Hold, Nobody
from tests.support import at_most, wait_until
from tests.workers import Installation, application, told


@pytest.fixture
def alone(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """An installation of the test's own, with these tasks."""
    packages = ["tests.integration.levels_tasks"]
    return Installation(tmp_path, packages, broker_url=valkey_url, database_url=new_database(tmp_path))


def levels(app: ConventionsApp) -> Levels:
    """How things stand."""
    return LevelReader(app, known_names(app)).read()


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_what_runs_and_what_waits(alone: Installation, pool: str) -> None:
    """By worker and queue, the longest first, with the progress that a job reports."""
    with (
        alone.application() as app,
        alone.worker(f"--pool={pool}", "--concurrency=3", "--queues=immediate,far", CONVENTIONS_RELEASE="r7") as worker,
    ):
        app.load_tasks()
        Far.delay(folder=alone.folder)
        wait_until(lambda: levels(app).running, 20, "the first one runs")
        held = [Hold.delay(folder=alone.folder, number=number).id for number in range(2)]
        Nobody.delay(number=1)
        Nobody.apply_async(kwargs={"number": 2}, countdown=60)

        def three_run() -> bool:
            running = levels(app).running or ()
            return len(running) == 3 and running[0].progress is not None  # which comes by another write

        wait_until(three_run, 20, "three run, and the first one has reported")
        found = levels(app)
        assert found.absent == {}
        assert found.running is not None
        first = found.running[0]
        assert (first.task, first.queue, first.progress and first.progress.percent) == (Far.name, "far", 25)
        assert {one.id for one in found.running[1:]} == {*held}
        assert all(0 < one.seconds < 60 and one.worker.startswith("worker0@") for one in found.running)
        assert found.queues is not None
        assert (found.queues["immediate"].consumers, found.queues["nobody"].consumers) == (1, 0)
        assert found.queues["nobody"].level[:4] == (1, 1, 0, 0)
        assert found.queues["nobody"].level.oldest is not None
        assert found.workers is not None
        ((report, silent),) = [(one.report, one.silent) for one in found.workers]
        assert (report.release, report.processes, report.queues, silent) == ("r7", 3, ("far", "immediate"), False)
        assert report.pool == ("thread" if pool == "threads" else "prefork")
        (alone.folder / "go").touch()
        wait_until(lambda: levels(app).running == [], 20, "none runs")
        worker.process.send_signal(signal.SIGTERM)
        worker.process.wait()
        assert WorkerReports(app.store).listing() == []  # it said so


def test_a_worker_that_stops_is_there_while_its_jobs_run(alone: Installation) -> None:
    """And says that it stops."""
    with alone.application() as app, alone.worker("--concurrency=1") as worker:
        Hold.delay(folder=alone.folder, number=1)
        wait_until(lambda: levels(app).running, 20, "it runs")
        worker.process.send_signal(signal.SIGTERM)
        (found,) = wait_until(
            lambda: [one.report for one in WorkerReports(app.store).listing() if one.report.stops], 20, "it stops"
        )
        assert found.queues == ()
        assert len(levels(app).running or ()) == 1
        (alone.folder / "go").touch()
        worker.process.wait()
        assert WorkerReports(app.store).listing() == []


def test_a_killed_worker_is_silent_and_consumes_nothing(alone: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; until then nobody can know."""
    with alone.application() as app, alone.worker() as worker:
        wait_until(lambda: WorkerReports(app.store).listing(), 20, "it reports")
        worker.kill()
        monkeypatch.setattr(worker_reports, "SILENT_AFTER", 3.0)
        wait_until(lambda: [one.silent for one in WorkerReports(app.store).listing()] == [True], 20, "it is silent")
        found = levels(app)
        assert found.queues is not None
        assert found.queues["immediate"].consumers == 0
        assert found.running == []


def test_a_worker_that_stops_consuming_says_so(alone: Installation) -> None:
    """It lives, and takes nothing of the queue."""
    with alone.application() as app, alone.worker() as worker:
        wait_until(lambda: WorkerReports(app.store).listing(), 20, "it reports")
        del worker
        told(app.control.cancel_consumer, "immediate")
        wait_until(lambda: "immediate" not in WorkerReports(app.store).listing()[0].report.queues, 20, "it says so")


@pytest.mark.everyday
def test_a_database_that_is_away_leaves_out_its_part(app: ConventionsApp) -> None:
    """And says why; no zero that nobody has counted."""
    app.database = Database("postgresql://nobody@127.0.0.1:1/none")
    found = levels(app)
    assert found.letters is None
    assert [*found.absent] == ["letters"]
    assert found.queues is not None


@pytest.mark.everyday
def test_a_worker_that_does_not_report_may_consume_anything(app: ConventionsApp) -> None:
    """As one of the release before: nobody says that nobody consumes."""
    app.store.redis.hset(app.store.key("members"), "worker elsewhere:1", f"1:1:{time.time() * 1000:.0f}")
    found = levels(app).queues
    assert found is not None
    assert found["immediate"].consumers is None


@pytest.mark.own_server
def test_a_redis_that_stands_still_is_waited_for_once(
    store: Store, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """Not by each part."""
    server = psutil.Process(store.redis.info("server")["process_id"])
    with application(broker_url=store.url, database_url=new_database(tmp_path)) as app:
        levels(app)
        server.suspend()
        try:
            with at_most(REDIS_WITHIN + 1):
                found = levels(app)
        finally:
            server.resume()
    assert (found.queues, found.workers) == (None, None)


@pytest.mark.everyday
def test_a_database_that_stands_still_holds_up_nobody(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its part is absent; who asks next does not wait for it again."""
    stands = threading.Event()
    monkeypatch.setattr("conventions.metrics.state_now._letters", lambda _: stands.wait(60))
    monkeypatch.setattr("conventions.metrics.state_now.SQL_WITHIN", 0.5)
    try:
        with at_most(1):
            assert "no answer within" in levels(app).absent["letters"]
        with at_most(1):
            assert "no answer to an earlier question" in levels(app).absent["letters"]
    finally:
        stands.set()
    wait_until(lambda: "letters" not in levels(app).absent)


def test_a_redis_that_is_away_leaves_out_all_that_it_has(new_database: Callable[[Path], str], tmp_path: Path) -> None:
    """Without an exception."""
    with application(broker_url=f"unix://{tmp_path / 's'}", database_url=new_database(tmp_path)) as app:
        found = levels(app)
    assert {"queues", "workers", "causes", "journal", "beats"} <= found.absent.keys()
    assert (found.queues, found.running) == (None, None)
    assert found.letters == {}


def test_a_function_that_runs_is_seen(alone: Installation) -> None:
    """By its worker's word alone, since it has no claim."""
    with alone.application() as app, alone.worker():
        # Not above: pytest would ask the proxy of a function what it is, and so make the tasks of every application.
        from tests.integration.levels_tasks import plain

        sent: Any = plain.delay(str(alone.folder))
        (found,) = wait_until(lambda: levels(app).running, 20, "it runs")
        assert (found.task, found.id, found.queue) == (plain.name, sent.id, "immediate")
        (alone.folder / "go").touch()
