"""A start without an outcome is in the history: who ran it, since when, and why it ended. Its worker or its process was killed, or stopped (R22)."""

import os
import signal
from typing import Any, NamedTuple, cast

import pytest

from conventions import Job
from conventions.app import ConventionsApp
from conventions.broker.delivery_names import DeliveryNames
from conventions.idempotency.claim_reading import read_claim
from conventions.idempotency.interrupted_start import NO_SIGN, STOPPED
from conventions.jobs.history import JobAttempt
from conventions.metrics.worker_reports import WorkerReports
from tests.crash.crash_tasks import Hold
from tests.crash.evidence import Runs
from tests.crash.set_ups import ONE_REDIS, RABBITMQ, TWO_REDIS, on_each_set_up
from tests.support import wait_until
from tests.workers import Installation, Worker, told

LEASE = 6  # seconds
QUEUE = ("-Q", "immediate", "--concurrency=1")


class Started(NamedTuple):
    """A job that runs."""

    id: str
    app: ConventionsApp

    def history(self) -> list[JobAttempt]:
        """Its attempts."""
        return list(Job.of(self.id, app=self.app).history(sql=True))

    def ended(self, *outcomes: str) -> list[JobAttempt]:
        """Its attempts, once they have ended so."""
        found: list[JobAttempt] = []

        def has_ended() -> bool:
            found[:] = self.history()
            return [one.outcome for one in found] == list(outcomes)

        wait_until(has_ended, 45, str(outcomes))
        return found


def sent(app: ConventionsApp) -> Started:
    """The job."""
    return Started(Hold.apply_async(kwargs={"number": 1}, actor="ada").id, app)


def wait_for_start(installation: Installation, app: ConventionsApp, starts: int = 1) -> None:
    """It runs, and its worker has said who it is."""
    wait_until(lambda: Runs(installation.folder).starts()[1] == starts, 45, "it runs")
    store = app.claims.store
    (key,) = cast("list[bytes]", store.redis.keys(store.key("claim", f"{Hold.name}:*")))
    claim = read_claim(store, key.decode().removeprefix(store.key("claim", "")))
    assert claim is not None
    wait_until(lambda: DeliveryNames(store).worker_of(claim.token).name, 20, "its worker has said who it is")


def listed(installation: Installation, *arguments: str) -> list[dict[str, str]]:
    """The audit."""
    return [one for one in installation.json("audit", "list", *arguments) if one["of"] == "execution"]


@on_each_set_up
def test_of_a_killed_worker(installation: Installation, app: ConventionsApp) -> None:
    """Once its lease is over, the story says so, before anybody runs it again; then the audit does, of each worker its own."""
    installation.settings |= {"lease": LEASE, "release": "r1"}
    with installation.worker(*QUEUE) as first:
        job = sent(app)
        wait_for_start(installation, app)
        first.kill()
    if app.port.keeps_claims:  # elsewhere nobody sees that its message waits
        (lapsed,) = job.ended("interrupted")
        assert (lapsed.worker or "").startswith("worker0@")
        assert (lapsed.release, lapsed.error_message) == ("r1", NO_SIGN)
    second = installation.celery("worker", "--loglevel=INFO", "--hostname=second@%h", *QUEUE)
    worker = Worker(installation, second, {"CONVENTIONS_RELEASE": "r2"})
    try:
        wait_until(lambda: Runs(installation.folder).starts()[1] == 2, 30, "it runs again")
        (installation.folder / "go").touch()
        lost, ended = job.ended("interrupted", "succeeded")
        assert ((lost.worker or "").partition("@")[0], (ended.worker or "").partition("@")[0]) == ("worker0", "second")
        assert (lost.attempt, ended.attempt, lost.release, ended.release) == (1, 1, "r1", "r2")
        assert lost.started_at < lost.ended_at <= ended.ended_at  # type: ignore[operator]  # all are known
        wait_until(lambda: len(listed(installation, "--id", job.id)) == 2, 20, "both attempts are in SQL")
        (line,) = listed(installation, "--worker", lost.worker or "")
        assert (line["id"], line["actor"], line["outcome"], line["release"]) == (job.id, "ada", "interrupted", "r1")
        assert [one["outcome"] for one in listed(installation, "--worker", ended.worker or "")] == ["succeeded"]
    finally:
        worker.kill()


@pytest.mark.parametrize("servers", [ONE_REDIS, TWO_REDIS], indirect=True)
def test_while_nobody_may_begin(installation: Installation, app: ConventionsApp) -> None:
    """Its queue is paused for good: what a worker left as it was killed is in the audit all the same, once."""
    installation.settings |= {"lease": LEASE}
    with installation.workers((*QUEUE,), (*QUEUE,)) as both:
        job = sent(app)
        wait_for_start(installation, app)
        paused = installation.run("pause", "queue", "immediate", "--actor", "ann", "--reason", "a test")
        assert paused.returncode == 0, paused.stdout
        (running,) = {one.worker for one in job.history()}
        assert running is not None
        both[int(running.partition("@")[0].removeprefix("worker"))].kill()
        wait_until(lambda: listed(installation, "--worker", running), 45, "it is in SQL")
        (line,) = listed(installation, "--worker", running)
        assert (line["id"], line["actor"], line["outcome"]) == (job.id, "ada", "interrupted")
        assert [one.outcome for one in job.history()] == ["interrupted"]
        (installation.folder / "go").touch()
        installation.run("resume", "queue", "immediate", "--actor", "ann", "--reason", "a test")
        job.ended("interrupted", "succeeded")
    assert Runs(installation.folder).starts()[1] == 2


@on_each_set_up
def test_of_a_killed_process(installation: Installation, app: ConventionsApp) -> None:
    """Its worker lives, and knows how it ended."""
    with installation.worker(*QUEUE) as worker:
        job = sent(app)
        wait_for_start(installation, app)
        (process,) = worker.children()
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: Runs(installation.folder).starts()[1] == 2, 45, "it runs again")
        (installation.folder / "go").touch()
        lost, ended = job.ended("interrupted", "succeeded")
        assert lost.worker == ended.worker
        assert "signal 9" in (lost.error_message or "")


@pytest.mark.parametrize("servers", [ONE_REDIS], indirect=True)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_of_a_worker_that_is_stopped(installation: Installation, app: ConventionsApp, pool: str) -> None:
    """Before the job has ended: its start does not count, and is in the history all the same."""
    installation.settings |= {"shutdown_grace": 1}
    job = sent(app)
    for starts in (1, 2):
        with installation.worker(*QUEUE, "--pool", pool) as worker:
            wait_for_start(installation, app, starts)
            worker.stop()
        assert WorkerReports(app.store).listing() == [], "it ended in order: nobody must take it for silent"
    with installation.worker(*QUEUE):
        (installation.folder / "go").touch()
        *lost, _ = job.ended("interrupted", "interrupted", "succeeded")
        assert [one.error_message for one in lost] == [STOPPED, STOPPED]


@pytest.mark.parametrize("servers", [ONE_REDIS, RABBITMQ], indirect=True)
@pytest.mark.parametrize("how", ["expired", "revoked"])
def test_of_one_that_never_runs_again(installation: Installation, app: ConventionsApp, how: str) -> None:
    """It is too late, or revoked, when another worker has it: who ran it, and that it was killed, is recorded all the same."""
    installation.settings |= {"lease": LEASE}
    with installation.worker(*QUEUE) as first:
        late: Any = {"expires": 3.0} if how == "expired" else {}
        job = Started(Hold.apply_async(kwargs={"number": 1}, actor="ada", **late).id, app)
        wait_for_start(installation, app)
        first.kill()
    store = app.claims.store
    (key,) = cast("list[bytes]", store.redis.keys(store.key("claim", f"{Hold.name}:*")))
    name = key.decode().removeprefix(store.key("claim", ""))
    wait_until(lambda: (claim := read_claim(store, name)) is not None and claim.lapsed, 30, "its lease is over")
    because = ("--actor", "ann", "--reason", "a test")
    if how == "revoked":
        installation.run("pause", "queue", "immediate", *because)
    with installation.worker(*QUEUE):
        if how == "revoked":
            (name,) = told(app.control.broadcast, "ping")[0]
            assert "OK" in installation.run("control", "--timeout=10", "-d", name, "revoke", job.id).stdout
            installation.run("resume", "queue", "immediate", *because)
        wait_until(
            lambda: {one["outcome"] for one in listed(installation, "--id", job.id)} >= {how}, 45, "it has ended"
        )
    found = {one["outcome"]: one for one in listed(installation, "--id", job.id)}
    assert found.keys() == {"interrupted", how}, found
    assert (found["interrupted"]["worker"].partition("@")[0], found["interrupted"]["actor"]) == ("worker0", "ada")
    assert Runs(installation.folder).starts()[1] == 1
