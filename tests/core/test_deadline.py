"""`Deadline`: the earliest one holds, and the caller's own work takes no time from it."""

from contextlib import suppress

from conventions.core.deadline import Deadline, current_deadline
from tests.deadline_clock import Clock


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
