"""What several tests use."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

T = TypeVar("T")

MOST_PATIENCE = 6

SELDOM = 0.1
"""Seconds between two looks of a long wait."""


def patient(seconds: float) -> float:
    """A time-out for this machine, from one in seconds for a free machine.

    It is multiplied by the load for each processor, of the last minute or of now: at least 1, at most `MOST_PATIENCE`. The bound of a
    promise is `at_most`.
    """
    load = os.getloadavg()[0]
    with suppress(OSError):  # only Linux says what runs now; the average comes to that late
        load = max(load, int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]))
    return seconds * min(max(load / (os.cpu_count() or 1), 1.0), MOST_PATIENCE)


@contextmanager
def at_most(seconds: float, slack: float = 3.0) -> Iterator[None]:
    """Assert that a block ends within the seconds of a promise, and what this machine may add: `slack`, more when it is busy."""
    began = time.monotonic()
    yield
    took, bound = time.monotonic() - began, seconds + patient(slack)
    assert took < bound, f"it took {took:.1f} s, and may take {bound:.1f} s"


def wait_until(predicate: Callable[[], T | Literal[False] | None], timeout: float = 30.0, description: str = "") -> T:
    """Poll `predicate` every 20 ms, more seldom after a second of that, and return its first truthy value.

    What lasts less than `SELDOM` may pass unseen. `timeout` is in seconds of monotonic time, more on a busy machine.
    Raises AssertionError with `description` when it passes.
    """
    began = time.monotonic()
    while True:
        value = predicate()
        if value:
            return value
        waited = time.monotonic() - began
        if waited >= patient(timeout):
            raise AssertionError(f"not within {timeout:g} s: {description or predicate}")
        # Many tests wait side by side, and a look at a job asks Redis and SQL: that was a tenth of all that the suite computed.
        time.sleep(min(max(0.02, waited / 50), SELDOM))


def wait_until_is(read: Callable[[], T], expected: T, timeout: float, description: str) -> None:
    """Wait until `read` returns what is expected; see `wait_until`. Raises: AssertionError with what it returns a moment later."""
    try:
        wait_until(lambda: read() == expected, timeout, description)
    except AssertionError as error:
        raise AssertionError(f"{error}: {expected} is expected, and it is {read()}") from error
