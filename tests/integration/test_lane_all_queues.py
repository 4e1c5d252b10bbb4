"""A worker of all queues: short jobs go together beside long ones, of which it takes no more than it has processes for."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Sizes
from tests.integration import (
    lane_tasks,  # its function is none that pytest may look at: Celery would make an application for it
)
from tests.integration.lane_fixtures import QUEUE, TURNS, Lane, alone, install, sizes, some  # noqa: F401  # fixtures
from tests.integration.lane_tasks import Apart, Lengthy, Nap, Quick
from tests.support import wait_until, wait_until_is
from tests.workers import Installation, told

Alone: TypeAlias = tuple[Installation, ConventionsApp]

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
        wait_until_is(lambda: app.broker.sizes("long"), Sizes(0, 0, 0), 20, "the long ones have ended")


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
        wait_until(lambda: len(lane.names) == 301, 30, "all of them have run beside it")
        assert lane.app.broker.sizes("long").in_flight == 1
        assert max(sizes(lane.notes).values()) > 10


@pytest.mark.parametrize("pool", POOLS)
def test_no_more_long_jobs_are_taken_than_run(alone: Alone, tmp_path: Path, pool: str) -> None:
    """Also in the middle of many short ones: another worker has the others, and what was read ahead of the short ones."""
    with warm(alone, tmp_path, "-P", pool, "-c", "2") as lane:
        with lane.paused():
            Quick.enqueue_many(some(tmp_path, 4_000))
            send_long(tmp_path, *(f"long {number}" for number in range(5)))
        wait_until_is(lambda: lane.app.broker.sizes("long"), Sizes(3, 0, 2), 30, "both processes run one")
        wait_until_is(lambda: lane.app.broker.sizes(QUEUE).in_flight, 0, 30, "others may have the short ones")
        done = len(lane.names)
        assert done < 4_000, "the long ones did not wait for the end of the queue"
        with alone[0].worker("-c", "1"):
            wait_until_is(lambda: lane.app.broker.sizes("long"), Sizes(2, 0, 3), 30, "a third process, a third job")
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
        # On a slow machine some of the short ones went back, too, and wait behind the one that runs.
        wait_until_is(lambda: lane.app.broker.sizes(QUEUE).in_flight, 4, 30, "four are held, of which one runs")


@pytest.mark.parametrize("pool", POOLS)
def test_short_jobs_that_go_alone_do_not_wait_behind_long_ones(alone: Alone, tmp_path: Path, pool: str) -> None:
    """As those whose results are kept, of which many were read at once: others may have them after a second."""
    with warm(alone, tmp_path, "-P", pool, "-c", "2") as lane:
        send_long(tmp_path, "first")
        lane.wait_for("first")
        with lane.paused():
            send_long(tmp_path, "second")
            for one in some(tmp_path, 200):
                Quick.apply_async(kwargs=one, ignore_result=False)
        lane.wait_for("second")
        wait_until_is(lambda: lane.app.broker.sizes(QUEUE).in_flight, 0, 30, "none is kept")


def test_a_thread_that_is_free_again_goes_on(alone: Alone, tmp_path: Path) -> None:
    """With what this worker holds, although nothing else comes."""
    with warm(alone, tmp_path, "-Q", QUEUE, "-P", "threads", "-c", "1") as lane:
        Apart.enqueue_many([{"folder": tmp_path, "name": "apart", "how": "held"}])
        lane.wait_for("apart")
        Quick.enqueue_many(some(tmp_path, 3))
        wait_until_is(lambda: lane.app.broker.sizes(QUEUE).in_flight, 4, 30, "they wait for the thread")
        (tmp_path / "go").touch()
        wait_until(lambda: len(lane.names) == 4, 30, "they run")


def test_functions_count_as_long_in_a_queue_of_long_jobs(alone: Alone, tmp_path: Path) -> None:
    """Tasks that know nothing of this platform. Each process has one more, as in plain Celery: those that run are acknowledged."""
    with warm(alone, tmp_path, "-c", "2") as lane:
        with lane.paused():
            for _ in range(20):
                lane_tasks.function.apply_async((str(tmp_path),), queue="long")
        wait_until_is(lambda: lane.app.broker.sizes("long"), Sizes(16, 0, 2), 30, "two run, and two wait for them")


@pytest.mark.parametrize(("options", "most"), [(("-P", "solo"), 1), (("--autoscale=2,1",), 2)])
def test_the_processes_that_there_may_be(alone: Alone, tmp_path: Path, options: tuple[str, ...], most: int) -> None:
    """Not those of the setting: a solo pool has one, one that scales itself its greatest number."""
    installation, app = alone
    send_long(tmp_path, *(str(number) for number in range(10)))
    with installation.worker(*options) as worker:
        lane = Lane(app, worker, tmp_path)
        wait_until(lambda: len(lane.names) == most, 20, "as many run as may")
        assert app.broker.sizes("long") == Sizes(10 - most, 0, most)
        (tmp_path / "go").touch()
        wait_until_is(lambda: app.broker.sizes("long"), Sizes(0, 0, 0), 20, "all have ended")


def test_a_queue_of_long_jobs_that_is_consumed_later(alone: Alone, tmp_path: Path) -> None:
    """Is one all the same."""
    with warm(alone, tmp_path, "-Q", QUEUE, "-c", "1") as lane:
        told(lane.app.control.add_consumer, "long")
        send_long(tmp_path, *(str(number) for number in range(10)))
        lane.wait_for("0")
        assert lane.app.broker.sizes("long") == Sizes(9, 0, 1)


def test_short_jobs_have_their_share_beside_many_long_ones(alone: Alone, tmp_path: Path) -> None:
    """One process for both: what a read brings of the short ones runs before the long one that came with them."""
    with warm(alone, tmp_path, "-c", "1") as lane:
        before = [naps_before_half_of_the_others(lane.within("turn 0"))]
        while before[-1] >= 15 and len(before) < TURNS:
            before.append(naps_before_half_of_the_others(lane.within(f"turn {len(before)}")))
    assert before[-1] < 15, f"of 20: {before}"


def naps_before_half_of_the_others(lane: Lane) -> int:
    """How many of 20 long jobs ran before half of those that are known as short."""
    lane.warm_up()
    with lane.paused():
        Nap.enqueue_many([{"folder": lane.folder, "name": f"nap {number}"} for number in range(20)])
        Quick.enqueue_many(some(lane.folder, 2_000))
    wait_until(lambda: len(lane.names) == 2_020, 60, "all have run")
    names = [one.name for one in lane.notes]
    half = [at for at, name in enumerate(names) if not name.startswith("nap")][1_000]
    return sum(name.startswith("nap") for name in names[:half])


def test_who_asks_for_one_message_at_a_time_gets_it(alone: Alone, tmp_path: Path) -> None:
    """`--prefetch-multiplier=1`: nothing is read ahead, however short jobs are."""
    installation, app = alone
    with installation.worker("-c", "1", "--prefetch-multiplier=1") as worker:
        lane = Lane(app, worker, tmp_path)
        Quick.enqueue_many(some(tmp_path, 100))
        lane.wait_until_done()
        with lane.paused():
            Quick.enqueue_many([one | {"how": "held"} for one in some(tmp_path, 20)])
        wait_until(lambda: len(lane.names) == 101, 30, "one runs")
        assert app.broker.sizes(QUEUE) == Sizes(19, 0, 1)
        (tmp_path / "go").touch()
        lane.wait_until_done()


def test_what_a_rate_limit_keeps_waits_in_its_queue(alone: Alone, tmp_path: Path) -> None:
    """However short it is."""
    installation, app = alone
    with installation.worker("-Q", QUEUE, "-c", "1") as worker:
        lane = Lane(app, worker, tmp_path)
        lane.warm_up()
        told(app.control.rate_limit, Quick.name, "1/m")
        with lane.paused():
            Quick.enqueue_many(some(tmp_path, 100))
        wait_until(lambda: len(lane.names) == 1, 30, "the first one runs")
        wait_until(lambda: app.broker.sizes(QUEUE).delayed >= 98, 30, "none waits here for its turn")
        told(app.control.rate_limit, Quick.name, 0)
        lane.wait_until_done()
