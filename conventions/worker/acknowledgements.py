"""`Acknowledgements`: acknowledges messages, and returns them, from the one thread that may write to the connection.

| from | who does it |
|---|---|
| the start | the loop, in its next turn |
| `leave_loop` | with a pool of processes a thread of Celery's, with other pools one of ours; both send heartbeats, too |
| `end` | whoever asks, at once |
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from conventions.core.background_rounds import Rounds
from conventions.worker.loop_calls import LoopCalls

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.1  # seconds between two looks of our thread
STOP_WITHIN = 5.0  # seconds that its last look may take


class Acknowledgements:
    """Those of one consumer.

    Args:
        loop_calls: what other threads ask the loop to do, such as to return a message.

    Attributes:
        by_celery: whether Celery's thread does them now.
    """

    def __init__(self, loop_calls: LoopCalls) -> None:
        self._loop_calls = loop_calls
        self._waiting: deque[Callable[[], object]] = deque()
        self._is_asked = self._has_ended = self.by_celery = False
        self._one_at_a_time = threading.RLock()
        fault = "what has ended is not acknowledged now"
        self._beat: Callable[[], object] = bool
        self._rounds = Rounds("acknowledgements", self._one_round, LOOK_EVERY, fault=fault, logger=logger)

    def soon(self, call: Callable[[], object], hub: Any) -> None:
        """Do it in the next turn of the hub's loop, or when that is over; from any thread. Raises: what it raises, after `end`."""
        if self._has_ended:
            call()
            return
        self._waiting.append(call)
        if not self._is_asked:
            self._is_asked = True
            hub.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Raises: what one of them raises, so that the loop hears of a lost connection; the others wait."""
        self._is_asked = False  # first: what is appended from now on asks anew
        with self._one_at_a_time:
            while self._waiting:
                self._waiting.popleft()()

    def _one_round(self) -> None:
        self.do_all()
        with self._one_at_a_time:
            self._beat()

    def do_all(self) -> None:
        """Do all that waits, whatever happens to each: the connection may be lost. Never raises."""
        with self._one_at_a_time:
            for do in (self._loop_calls.run, self._take_turn):
                while True:  # both leave out the one that has failed
                    try:
                        do()
                        break
                    except Exception:
                        logger.exception("a message of the lost connection is not acknowledged, and comes again")

    def leave_loop(self, *, by_celery: bool, beat: Callable[[], object]) -> None:
        """The loop is over, and jobs still end; `by_celery`: Celery has a thread for them. `beat` sends a heartbeat, if it is time; never raises."""
        self.by_celery, self._beat = by_celery, beat
        self.do_all()
        if not by_celery:
            self._rounds.start()

    def end(self) -> None:
        """No job ends any more; the connection is still open."""
        self._rounds.stop(within=STOP_WITHIN)
        self.by_celery, self._has_ended = False, True
        self.do_all()
