"""A worker of all queues: short jobs go together beside long ones, of which it takes no more than it has processes for."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conventions.app import ConventionsApp
from conventions.broker import Sizes
from tests.integration.lane_fixtures import QUEUE, Lane, alone, install, sizes, some  # noqa: F401  # fixtures
from tests.integration.lane_tasks import Apart, Lengthy, Quick
from tests.support import wait_until
from tests.workers import Installation

type Alone = tuple[Installation, ConventionsApp]

POOLS = ("prefork", "threads")


@contextmanager
def warm(alone: Alone, folder: Path, *options: str) -> Iterator[Lane]:
    """A worker that knows that `Quick` is quick; without options it consumes every queue."""
    installation, app = alone
    with installation.worker(*options) as worker:
        lane = Lane(app, worker, folder)
        lane.warm_up()
        try:
            yield lane
        finally:
            (folder / "go").touch()
        lane.wait_until_done()
        wait_until(lambda: app.broker.sizes("long") == Sizes(0, 0, 0), 20, "the long ones have ended")


def send_long(folder: Path, *names: str) -> None:
    """Let jobs begin that take until the file `go` is there."""
    Lengthy.enqueue_many([{"folder": folder, "name": name} for name in names])


@pytest.mark.parametrize("pool", POOLS)
def test_short_jobs_go_together_beside_a_long_one(alone: Alone, tmp_path: Path, pool: str) -> None:
    """In the process that is left to them."""
    with warm(alone, tmp_path, "-P", pool, "-c", "2") as lane:
        send_long(tmp_path, "long")
        lane.wait_for("long")
        Quick.enqueue_many(some(tmp_path, 300))
        wait_until(lambda: len(lane.names) == 301, 10, "all of them have run beside it")
        assert lane.app.broker.sizes("long").in_flight == 1
        assert max(sizes(lane.notes).values()) > 10


@pytest.mark.parametrize("pool", POOLS)
def test_no_more_long_jobs_are_taken_than_run(alone: Alone, tmp_path: Path, pool: str) -> None:
    """Also in the middle of many short ones: another worker has the others, and what was read ahead of the short ones."""
    with warm(alone, tmp_path, "-P", pool, "-c", "2") as lane:
        with lane.paused():
            Quick.enqueue_many(some(tmp_path, 4_000))
            send_long(tmp_path, *(f"long {number}" for number in range(5)))
        wait_until(lambda: lane.app.broker.sizes("long") == Sizes(3, 0, 2), 10, "both processes run one")
        wait_until(lambda: lane.app.broker.sizes(QUEUE).in_flight == 0, 10, "others may have the short ones")
        done = len(lane.names)
        assert done < 4_000, "the long ones did not wait for the end of the queue"
        with alone[0].worker("-c", "1"):
            wait_until(lambda: lane.app.broker.sizes("long") == Sizes(2, 0, 3), 10, "a third process, a third job")
            (tmp_path / "go").touch()
            lane.wait_until_done()
    assert len(set(lane.names)) == len(lane.names) == 4_005


def test_a_long_job_begins_before_the_end_of_a_backlog(alone: Alone, tmp_path: Path) -> None:
    """One process for both: each queue has its share of what is read."""
    with warm(alone, tmp_path, "-c", "1") as lane:
        (tmp_path / "go").touch()
        with lane.paused():
            Quick.enqueue_many(some(tmp_path, 6_000))
            send_long(tmp_path, "long")
        wait_until(lambda: len(lane.names) == 6_001, 30, "all have run")
        assert [one.name for one in lane.notes].index("long") < 4_000


def test_jobs_that_go_alone_are_not_kept_from_other_workers(alone: Alone, tmp_path: Path) -> None:
    """Short ones made the worker read ahead: what takes long after all goes back, beyond what Celery would hold."""
    with warm(alone, tmp_path, "-Q", QUEUE, "-c", "1") as lane:
        with lane.paused():
            Quick.enqueue_many(some(tmp_path, 10))
            Apart.enqueue_many([{"folder": tmp_path, "name": f"{number}", "how": "held"} for number in range(20)])
        lane.wait_for("0")
        wait_until(lambda: lane.app.broker.sizes(QUEUE) == Sizes(16, 0, 4), 10, "four are held, of which one runs")
