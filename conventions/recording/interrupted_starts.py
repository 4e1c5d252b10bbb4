"""`InterruptedStarts`: writes starts without an outcome to the journal, of messages that wait for their next start, perhaps for long.

Who takes a message from a process or a worker that is gone notes its tag. The claim keeps the start until it is written: what is not noted is written
when the next start begins.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis.exceptions import ResponseError

from conventions.core.background_rounds import Rounds
from conventions.core.time_units import milliseconds
from conventions.execution.application import Application
from conventions.execution.record_interrupted import record_kept
from conventions.execution.waiting_event import waiting_event
from conventions.records.journal import INTERRUPTED, ODD

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
        store = self._app.broker.store
        redis: Any = store.redis
        key, (seconds, _) = store.key("interrupted"), redis.time()
        tags: list[bytes] = redis.zrangebyscore(key, "-inf", milliseconds(seconds - SETTLED), start=0, num=AT_ONCE)
        for tag in tags:
            with suppress(ResponseError, *ODD):  # of what another program has written
                self._write(tag.decode(errors="replace"))
            redis.zrem(
                key, tag
            )  # afterwards: who dies in between leaves it to the next one, and each start is written once
        return len(tags)

    def _write(self, tag: str) -> None:
        found = self._app.port.find(tag)
        if found is not None and found.place not in ("ended", "later"):
            event = waiting_event(
                found.headers, tag, INTERRUPTED, queue=found.queue, generation=found.generation, attempt=found.attempt
            )
            record_kept(self._app, [event])
