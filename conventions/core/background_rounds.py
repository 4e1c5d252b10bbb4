"""`Rounds`: what a process does again and again beside its work, in a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable

from conventions.core.errors import BrokerUnavailable
from conventions.core.forks import call_in_child
from conventions.core.outage import is_outage

LOOK_EVERY = 0.2  # seconds between two looks whether a wait is to end


class Rounds:
    """Does one thing again and again, from `start` until `stop`.

    The thread is a daemon: it keeps no process from ending. A forked process does not inherit it, and may start its own. Whatever a round
    raises, the next one comes; it is said once, until a round succeeds again.

    Args:
        name: of the thread.
        once: one round.
        every: seconds before each round, or what tells them.
        fault: what is wrong while rounds fail, for the log.
        logger: where that is said.
    """

    def __init__(
        self,
        name: str,
        once: Callable[[], object],
        every: float | Callable[[], float],
        *,
        fault: str,
        logger: logging.Logger,
    ) -> None:
        self._name, self._once, self._every, self._fault, self._logger = name, once, every, fault, logger
        self._reset()
        call_in_child(self._reset)

    def _reset(self) -> None:
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._fails = False

    def start(self) -> None:
        """Begin, unless it has begun here, or was stopped."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def stop(self, within: float = 0.0) -> bool:
        """Begin no round any more, and wait so many seconds for one that is under way. Returns whether all is over."""
        self._ended.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(within)
        return not thread.is_alive()

    def pause(self, seconds: float) -> bool:
        """Wait within a round. Returns whether it is to end."""
        return self._ended.wait(seconds)

    def _run(self) -> None:
        while not self._ended.wait(self._every if isinstance(self._every, (int, float)) else self._every()):
            try:
                self._once()
            except Exception as error:  # noqa: BLE001  # whatever it is, nobody else does this
                self._tell(error)
            else:
                self._fails = False

    def _tell(self, error: Exception) -> None:
        if self._fails:
            return
        self._fails = True
        if is_outage(error) or isinstance(error, BrokerUnavailable) or type(error).__module__.startswith("sqlalchemy"):
            self._logger.warning("%s, trying again: %s", self._fault, error)
        else:
            self._logger.error("%s, trying again: a fault of the platform", self._fault, exc_info=error)


def rest(seconds: float, stop: Callable[[], bool]) -> None:
    """Wait so many seconds, or until `stop()`."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not stop():
        time.sleep(min(left, LOOK_EVERY))
