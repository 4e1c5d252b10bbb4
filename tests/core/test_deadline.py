"""`Deadline`: the earliest one holds, and the caller's own work takes no time from it."""

from contextlib import suppress

import pytest

from conventions.core import deadline
from conventions.core.deadline import Deadline, current_deadline


class Clock:
    """A clock that stands still until a test puts it forward."""

    now = 1000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all deadlines."""
    clock = Clock()
    monkeypatch.setattr(deadline, "time", clock)
    return clock


def test_own_work_takes_no_time(clock: Clock) -> None:
    """What was left before it is left after it, and it has no deadline itself."""
    with Deadline(3) as limit:
        clock.now += 1
        with limit.own_work():
            assert current_deadline() is None
            clock.now += 60
        assert current_deadline() is limit
        assert limit.left == 2


def test_own_work_takes_time_from_a_deadline_around(clock: Clock) -> None:
    """The earlier one holds, also after it."""
    with Deadline(10) as outer, Deadline(3) as limit:
        with limit.own_work():
            assert current_deadline() is outer
            clock.now += 9
        assert limit.left == outer.left == 1


def test_an_error_of_own_work_leaves_the_deadline(clock: Clock) -> None:
    """The block that handles it is as limited as before."""
    with Deadline(3) as limit:
        with suppress(LookupError), limit.own_work():
            clock.now += 9
            raise LookupError
        assert current_deadline() is limit
        assert limit.left == 3
    assert current_deadline() is None
