"""`Counting`: beside the recorder that leads, counts what the journal brings, also while SQL does not answer."""

import logging
from collections.abc import Callable

from conventions.core.rounds import Rounds
from conventions.metrics.event_counter import EventCounter

logger = logging.getLogger(__name__)

EVERY = 0.5  # seconds between two looks; what is counted is two seconds old at the most


class Counting:
    """Counts while it leads.

    Args:
        counter: what counts.
        leads: whether the recorder of this process leads; asked before each look.
    """

    def __init__(self, counter: EventCounter, leads: Callable[[], bool]) -> None:
        self._counter, self._leads = counter, leads
        self._stop: Callable[[], bool] = bool
        self._rounds = Rounds("counts", self._look, EVERY, fault="events are not counted now", logger=logger)

    def start(self, stop: Callable[[], bool]) -> None:
        """Begin in a thread of its own, until `stop()`."""
        self._stop = stop
        self._rounds.start()

    def _look(self) -> None:
        if self._stop():
            self._rounds.stop()
        elif self._leads():
            self._counter.count_all()
