"""Which jobs are looked at, and what becomes of those whose lease is over."""

from collections.abc import Callable, Iterator

import pytest
from redis.exceptions import ConnectionError as Away

from conventions.worker.hung_jobs import HungJobs
from tests.support import wait_until

EVERY = 0.05  # seconds


@pytest.fixture
def hung() -> Iterator[HungJobs]:
    """Those of a worker, which nobody looks at after the test: its faults would be in the log of another one."""
    found = HungJobs(every=EVERY)
    yield found
    assert found._rounds.stop(within=30)


class Job:
    """A job that says what it is told to say."""

    def __init__(self, lapsed: Callable[[], bool], ends: bool = True) -> None:
        self.token, self._lapsed, self._ends = str(id(self)), lapsed, ends
        self.claim = f"claim of {self.token}"
        self.asked = self.told = 0

    def has_lapsed(self) -> bool:
        """Whether its lease is over."""
        self.asked += 1
        return self._lapsed()

    def on_lapsed(self) -> bool:
        """End it."""
        self.told += 1
        return self._ends


def away() -> bool:
    """The store does not answer."""
    raise Away("away")


def broken() -> bool:
    """Have a fault of ours."""
    raise ValueError("broken")


def test_a_job_whose_lease_is_over_is_ended_once(hung: HungJobs) -> None:
    """And one that goes on after all is looked at again."""
    ended, waits, runs = Job(lambda: True), Job(lambda: True, ends=False), Job(lambda: False)
    for job in (ended, waits, runs):
        hung.watch(job)
    wait_until(lambda: waits.told > 1 and runs.asked > 1, 30, "two looks")
    assert ended.told == ended.asked == 1
    assert runs.told == 0


def test_a_job_that_has_ended_is_not_looked_at(hung: HungJobs) -> None:
    """Its message is acknowledged, or has gone back."""
    over, other = Job(lambda: True), Job(lambda: False)
    hung.watch(over)
    hung.watch(other)
    hung.forget(over)
    wait_until(lambda: other.asked > 0, 30, "a look")
    assert over.asked == 0


def test_an_outage_and_a_fault_end_no_look_for_others(hung: HungJobs) -> None:
    """The next look comes; a fault in one job leaves the others alone."""
    first, second = Job(broken), Job(lambda: True)
    hung.watch(first)
    hung.watch(second)
    wait_until(lambda: second.told == 1, 30, "the second one is ended")
    unreachable, third = Job(away), Job(lambda: True)
    hung.watch(unreachable)
    wait_until(lambda: unreachable.asked > 1, 30, "it is tried again")
    hung.forget(unreachable)
    hung.watch(third)
    wait_until(lambda: third.told == 1, 30, "the look goes on")


def test_the_claims_of_those_that_run(hung: HungJobs) -> None:
    """By token; not of one that has ended."""
    runs, over = Job(lambda: False), Job(lambda: False)
    hung.watch(runs)
    hung.watch(over)
    hung.forget(over)
    assert hung.claims() == {runs.token: runs.claim}
