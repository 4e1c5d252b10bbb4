"""`Rounds`: what works beside a worker's work goes on through every fault, ends in time, and is not inherited."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context

import pytest
from redis.exceptions import ConnectionError as Away

from conventions.core.background_rounds import Rounds
from tests.support import patient, wait_until

logger = logging.getLogger(__name__)


class Counted:
    """A round that counts, and raises what it is told."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __call__(self) -> None:
        """One round."""
        self.count += 1
        self.goes_on.wait()
        if self.error is not None:
            raise self.error

    def wait(self, more: int = 3) -> None:
        """Wait until so many more have begun."""
        enough = self.count + more
        wait_until(lambda: self.count >= enough, 10, "more rounds")


@contextmanager
def running(once: Counted) -> Iterator[Rounds]:
    """Its rounds, which are over after the block."""
    rounds = Rounds("counted", once, lambda: 0.001, fault="counting", logger=logger)
    rounds.start()
    try:
        yield rounds
    finally:
        once.goes_on.set()
        assert rounds.stop(10)


@pytest.mark.parametrize(("error", "traceback"), [(ValueError("odd"), True), (Away("gone"), False)])
def test_a_fault_is_said_once_and_the_next_round_comes(
    caplog: pytest.LogCaptureFixture, error: Exception, traceback: bool
) -> None:
    """Until a round succeeds; an outage in one line."""
    once = Counted()
    with running(once):
        for times in (1, 2):
            once.error = error
            once.wait()
            assert [bool(one.exc_info) for one in caplog.records] == [traceback] * times
            once.error = None
            once.wait()
    assert all(
        one.name == __name__ and one.getMessage().startswith("counting, trying again: ") for one in caplog.records
    )


def test_it_ends_within_a_bound() -> None:
    """A round that is under way is waited for as long as one wants, and no other begins."""
    once = Counted()
    with running(once) as rounds:
        once.wait()
        once.goes_on.clear()
        once.wait(1)
        assert not rounds.stop(0.01)
        assert rounds.pause(10), "a round is told so at once"
        once.goes_on.set()
        assert rounds.stop(10)
        counted = once.count
        rounds.start()  # it is over for good
        assert rounds.stop(10)
    assert once.count == counted


def test_a_round_may_end_itself() -> None:
    """It does not wait for its own thread."""
    found: list[Rounds] = []
    ended = threading.Event()

    def once() -> None:
        if found[0].stop(10):
            ended.set()

    found.append(Rounds("ends", once, 0.001, fault="ending", logger=logger))
    found[0].start()
    assert ended.wait(patient(10))
    wait_until(lambda: found[0].stop(1), 10, "the thread is over")


def test_it_has_one_thread() -> None:
    """Whoever needs it starts it."""
    before, once = threading.active_count(), Counted()
    with running(once) as rounds:
        for _ in range(3):
            rounds.start()
        assert threading.active_count() == before + 1


def _inherits(rounds: Rounds, once: Counted) -> None:
    counted = once.count
    quiet = rounds._thread is None and not rounds.pause(0.1) and once.count == counted
    rounds.start()
    once.wait()
    os._exit(0 if quiet and rounds.stop(10) else 1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # it has threads, as a worker has
def test_a_fork_does_not_inherit_it() -> None:
    """A process of the pool starts its own, also where that of its parent was ended."""
    once = Counted()
    with running(once) as rounds:
        for ends in (False, True):
            once.wait(0 if ends else 3)
            child = get_context("fork").Process(target=_inherits, args=(rounds, once))
            child.start()
            child.join(patient(20))
            assert child.exitcode == 0
            rounds.stop(10)
