"""`BoundedCalls`: calls that may wait for ever for a server that stands still, each for a bounded time.

A database driver has no time-out of its own for a connection whose server is frozen. The call goes on in its thread; until it ends, further
calls of its name fail at once, so that no threads gather.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


class StillWaits(Exception):
    """A call has not ended in time."""


class BoundedCalls:
    """Calls by name, each in a thread of its own."""

    def __init__(self) -> None:
        self._running: dict[str, Future[object]] = {}
        self._lock = threading.Lock()

    def call(self, name: str, function: Callable[[], T], seconds: float) -> T:
        """Call a function and wait for it. Raises: StillWaits: it has not ended, or an earlier one has not; or what it raises."""
        future: Future[T] = Future()
        with self._lock:
            before = self._running.get(name)
            if before is not None and not before.done():
                raise StillWaits(f"no answer to an earlier question within {seconds:g} s")
            self._running[name] = future  # type: ignore[assignment]  # only its end is asked for
        context = copy_context()

        def run() -> None:
            try:
                future.set_result(context.run(function))
            except BaseException as error:  # noqa: BLE001  # whoever waits gets it
                future.set_exception(error)

        threading.Thread(target=run, name=name, daemon=True).start()
        try:
            return future.result(seconds)
        except TimeoutError:
            if future.done():  # it raised that itself
                raise
            raise StillWaits(f"no answer within {seconds:g} s") from None
