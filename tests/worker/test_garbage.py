"""The collector looks seldom where no job runs, and as often as Python does where one runs."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.signals import worker_ready

from conventions import ImmediateTask
from conventions.core.garbage import SELDOM, USUAL, look_as_before, look_seldom
from tests.support import wait_until
from tests.workers import Installation, acting_through, forget

AS_PYTHON = (USUAL[-1], 10, 10)


class Threshold(ImmediateTask):
    """Note how often this process looks."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:  # noqa: ARG002
        Path("pool").write_text(str(gc.get_threshold()[0]), encoding="ascii")


@worker_ready.connect(weak=False)
def note(**_: Any) -> None:
    """Of the main process."""
    Path("main").write_text(str(gc.get_threshold()[0]), encoding="ascii")


@pytest.fixture
def collector() -> Iterator[None]:
    """The collector as it was."""
    before = gc.get_threshold()
    yield
    look_as_before()
    gc.set_threshold(*before)


def test_seldom_and_as_before(collector: None) -> None:
    """What it was comes back, once."""
    gc.set_threshold(*AS_PYTHON)
    look_seldom()
    assert gc.get_threshold() == (SELDOM, *AS_PYTHON[1:])
    look_as_before()
    assert gc.get_threshold() == AS_PYTHON
    gc.set_threshold(SELDOM)
    look_as_before()
    assert gc.get_threshold()[0] == SELDOM, "that is of somebody else"


@pytest.mark.parametrize("threshold", [(0, 0, 0), (500, 5, 5), (50_000, 20, 20)])
def test_who_has_said_it_keeps_it(collector: None, threshold: tuple[int, int, int]) -> None:
    """A team knows its own code."""
    gc.set_threshold(*threshold)
    look_seldom()
    assert gc.get_threshold() == threshold
    look_as_before()
    assert gc.get_threshold() == threshold


def test_a_collector_that_is_turned_off_stays_so(collector: None) -> None:
    """It is no collector that looks seldom."""
    gc.set_threshold(*AS_PYTHON)
    gc.disable()
    try:
        look_seldom()
        assert gc.get_threshold() == AS_PYTHON
    finally:
        gc.enable()


@pytest.mark.parametrize(("pool", "in_main"), [("prefork", SELDOM), ("solo", None)])
def test_in_a_worker(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path, pool: str, in_main: int | None
) -> None:
    """The main process of a pool of processes looks seldom; where jobs run nothing is changed."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path)}
    installation = Installation(tmp_path, [__name__], [Path(__file__).parent], **settings)
    usual = str(gc.get_threshold()[0])
    with installation.application() as app, acting_through(app), installation.worker("-P", pool, "-c", "1"):
        Threshold.delay(number=1)
        in_pool = tmp_path / "pool"
        wait_until(lambda: in_pool.exists() and in_pool.read_text(encoding="ascii"), 20)
        assert in_pool.read_text(encoding="ascii") == usual
        assert (tmp_path / "main").read_text(encoding="ascii") == (usual if in_main is None else str(in_main))
        forget(app.store)
