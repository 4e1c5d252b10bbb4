"""`InterruptedStarts`: writes starts without an outcome to the journal, of messages that wait for their next start, perhaps for long.

Who takes a message from a process or a worker that is gone notes its tag. What is read from there and not written, as this process is killed, is
kept by its claim: the next start writes it.
"""

import logging
from collections.abc import Callable
from typing import Any

from conventions.core.rounds import Rounds
from conventions.core.units import milliseconds
from conventions.execution.application import Application
from conventions.execution.interrupted import record_kept
from conventions.execution.waiting_event import waiting_event
from conventions.records.journal import INTERRUPTED

logger = logging.getLogger(__name__)

EVERY = 1.0  # seconds between two looks
AT_ONCE = 100  # messages of one look at Redis
SETTLED = (
    5.0  # seconds after its message went back in which a job that ended in that moment may still record its outcome
)


class InterruptedStarts:
    """Writes while it leads.

    Args:
        app: the application. Where its broker shows no waiting message, nothing is noted.
        leads: whether the recorder of this process leads; asked before each look.
    """

    def __init__(self, app: Application, leads: Callable[[], bool]) -> None:
        self._app, self._leads = app, leads
        self._stop: Callable[[], bool] = bool
        fault = "starts without an outcome are written when the next ones begin"
        self._rounds = Rounds("interrupted", self._look, EVERY, fault=fault, logger=logger)

    def start(self, stop: Callable[[], bool]) -> None:
        """Begin in a thread of its own, until `stop()`."""
        self._stop = stop
        self._rounds.start()

    def _look(self) -> None:
        while not self._stop():
            if not self._leads() or not self.write():
                return
        self._rounds.stop()

    def write(self) -> int:
        """Write those of some messages. Returns of how many. Raises: RedisError: the rest is written when the next starts begin."""
        if not self._app.port.can.looks:
            return 0
        tags = self._noted()
        found = [(tag, self._app.port.find(tag)) for tag in tags]
        waiting = [
            waiting_event(
                one.headers, tag, INTERRUPTED, queue=one.queue, generation=one.generation, attempt=one.attempt
            )
            for tag, one in found
            if one is not None and one.place not in ("ended", "later")
        ]
        record_kept(self._app, waiting)
        return len(tags)

    def _noted(self) -> list[str]:
        """Take some from the list."""
        store = self._app.broker.store
        redis: Any = store.redis
        key, (seconds, _) = store.key("interrupted"), redis.time()
        tags: list[bytes] = redis.zrangebyscore(key, "-inf", milliseconds(seconds - SETTLED), start=0, num=AT_ONCE)
        if tags:
            redis.zrem(key, *tags)
        return [tag.decode(errors="replace") for tag in tags]
