"""What several tests use."""

import time
from collections.abc import Callable
from typing import Literal


def wait_until[T](
    predicate: Callable[[], T | Literal[False] | None], timeout: float = 30.0, description: str = ""
) -> T:
    """Poll `predicate` every 20 ms and return its first truthy value.

    `timeout` is in seconds of monotonic time. Raises AssertionError with `description` when it passes.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout:g} s: {description or predicate}")
        time.sleep(0.02)
