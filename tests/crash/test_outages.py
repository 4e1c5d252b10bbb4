"""What a worker outlives, and what outlives every worker."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from conventions.app import ConventionsApp
from tests.crash.chaos import pause
from tests.crash.crash_tasks import Append, AppendAtSecond, Hold
from tests.crash.evidence import Runs
from tests.crash.server import Breakable
from tests.crash.set_ups import on_each_set_up
from tests.crash.tempo import QUICK, USUAL, Tempo
from tests.support import wait_until
from tests.workers import Installation, letters, wait_until_empty

JOBS = range(40)


def starts(installation: Installation) -> set[int]:
    return {*Runs(installation.folder).starts()}


@on_each_set_up
def test_retries_and_countdowns_survive_the_death_of_every_worker(
    installation: Installation, app: ConventionsApp, servers: Sequence[Breakable]
) -> None:
    """Some wait, some run, some wait for their second attempt when all workers are killed at once."""
    QUICK.install(installation)
    with installation.workers(["--concurrency=2"], ["--concurrency=2"]) as workers:
        for number in JOBS:
            (AppendAtSecond if number % 2 else Append).apply_async(
                (number, 0.05), countdown=number / 20 if number % 4 < 2 else None
            )
        wait_until(lambda: len(starts(installation)) > len(JOBS) / 4, 10, "some have started")
        for worker in workers:
            worker.kill()
    runs = Runs(installation.folder)
    running = runs.in_progress({line.pid for line in runs.lines}, time.monotonic())
    assert starts(installation) < {*JOBS}, "all had started: this shows nothing"
    with installation.worker("--concurrency=2"):
        wait_until_empty(app, 40, servers)
    effects = Runs(installation.folder).effects()
    assert {*effects} == {*JOBS}
    assert {number for number, times in effects.items() if times > 1} <= running
    assert not letters(app, state=None)


@contextmanager
def outlived(
    installation: Installation, app: ConventionsApp, servers: Sequence[Breakable], tempo: Tempo = QUICK
) -> Iterator[None]:
    """A worker with a job that runs, others that wait, and something that happens in the block.

    Afterwards the same processes go on: the job ends once, and new ones are taken at once. What a read would have
    brought whose answer was lost is in nobody's hands, and comes when its time is over.
    """
    tempo.install(installation)
    with installation.worker("--concurrency=2") as worker:
        Hold.delay(1000)
        for number in JOBS:
            Append.apply_async((number, 0.02), countdown=None if number % 2 else 1 + number / 20)
        wait_until(lambda: 1000 in starts(installation), 10, "the job runs")
        yield
        wait_until(
            lambda: {*Runs(installation.folder).effects()} >= {*JOBS}, tempo.recovery + 40, "what waited is done"
        )
        (installation.folder / "go").touch()
        wait_until_empty(app, 30, servers)
        Append.delay(2000, 0.01)
        wait_until_empty(app, 20, servers)
        effects = Runs(installation.folder).effects()
        assert effects == dict.fromkeys((*JOBS, 1000, 2000), 1)
        assert worker.process.poll() is None
        assert {line.main for line in Runs(installation.folder).lines} == {worker.process.pid}
        assert not letters(app, state=None)
        assert worker.stop() == 0


@on_each_set_up
def test_a_worker_outlives_the_death_of_its_server(
    installation: Installation, app: ConventionsApp, servers: Sequence[Breakable]
) -> None:
    """Its data come back with it, and so does the job that runs."""
    with outlived(installation, app, servers):
        servers[0].kill()
        pause(2)
        servers[0].start()


@pytest.mark.parametrize("kinds", [["normal", "pubsub"], ["pubsub"]], ids="+".join)
@on_each_set_up
def test_a_worker_outlives_the_loss_of_connections(
    installation: Installation, app: ConventionsApp, servers: Sequence[Breakable], kinds: list[str]
) -> None:
    """Three times in a row."""
    with outlived(installation, app, servers):
        for _ in range(3):
            wait_until(lambda: servers[0].cut_connections(*kinds), 5, f"the worker has a connection again: {kinds}")


@pytest.mark.parametrize(("seconds", "tempo"), [(6, QUICK), pytest.param(20, USUAL, marks=pytest.mark.soak)])
@on_each_set_up
def test_a_worker_outlives_a_server_that_does_not_answer(
    installation: Installation, app: ConventionsApp, servers: Sequence[Breakable], seconds: float, tempo: Tempo
) -> None:
    """For longer than the time-out of a socket."""
    with outlived(installation, app, servers, tempo):
        servers[0].freeze()
        pause(seconds)
        servers[0].thaw()
