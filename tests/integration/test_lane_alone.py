"""Jobs that go to their process by themselves, through the lane: functions, which know nothing of this platform."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Sizes
from tests.integration import (
    lane_tasks,  # pytest would look at an imported function, and Celery would make an application for it
)
from tests.integration.lane_fixtures import POOLS, QUEUE, alone, install  # noqa: F401  # fixtures
from tests.support import patient, wait_until
from tests.workers import Installation, Worker

Alone: TypeAlias = tuple[Installation, ConventionsApp]


def ran(folder: Path) -> list[str]:
    """The names of those that have begun, in order."""
    file = folder / "functions"
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def send(folder: Path, *names: str, how: str = "") -> list[str]:
    """Send functions of these names; returns their ids."""
    return [lane_tasks.function.apply_async((str(folder), name, how), queue=QUEUE).id for name in names]


@contextmanager
def one_place(alone: Alone, pool: str) -> Iterator[Worker]:
    """A worker that runs one job at a time."""
    with alone[0].worker("-Q", QUEUE, "-P", pool, "-c", "1") as worker:
        yield worker


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_that_stops_begins_no_more(alone: Alone, tmp_path: Path, pool: str) -> None:
    """What runs ends, and does not come again; what waited in the lane is back in its queue, and has not begun."""
    with one_place(alone, pool) as worker:
        send(tmp_path, *"abcd")
        wait_until(lambda: ran(tmp_path) == ["a"], 15, "the first one runs")
        if pool != "solo":  # which answers nothing meanwhile
            wait_until(
                lambda: any((alone[1].control.inspect(timeout=1).active() or {}).values()), 10, "the worker knows"
            )
        worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Warm shutdown" in worker.output, 30, "it was told to stop")
        (tmp_path / "go").touch()
        assert worker.process.wait(patient(20)) == 0
        assert "Traceback" not in worker.output
    assert ran(tmp_path) == ["a"]
    assert alone[1].broker.sizes(QUEUE) == Sizes(3, 0, 0)
    assert not alone[1].broker.store.redis.exists(alone[1].broker.store.key("receipts"))


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_function_that_exits(alone: Alone, tmp_path: Path, pool: str) -> None:
    """Has failed, and the next ones run: it takes no thread with it."""
    with one_place(alone, pool):
        (tmp_path / "go").touch()
        (exits,) = send(tmp_path, "exits", how="exits")
        send(tmp_path, *"abc")
        wait_until(lambda: ran(tmp_path)[-3:] == ["a", "b", "c"], 15, "the others run")
        result = alone[1].AsyncResult(exits)
        wait_until(lambda: result.state == "FAILURE", 20, "it has failed")
        assert "SystemExit(3)" in str(result.result)
        wait_until(lambda: alone[1].broker.sizes(QUEUE) == Sizes(0, 0, 0), 30, "nothing is held")
    assert ran(tmp_path) == ["exits", "a", "b", "c"]
