"""`Counting`: beside the recorder that leads, counts what the journal brings, also while SQL does not answer, and notes how long queues are."""

import logging
import time
from collections.abc import Callable

from conventions.core.background_rounds import Rounds
from conventions.metrics.queue_length_history import Depths, ReadLevels, until_next_look

logger = logging.getLogger(__name__)

EVERY = 0.5  # seconds between two looks; what is counted is two seconds old at the most


class Counting:
    """Counts while it leads.

    Args:
        count: counts what is there.
        leads: whether the recorder of this process leads; asked before each look.
        depths: where the lengths of queues are noted.
        levels: reads them.
    """

    def __init__(
        self, count: Callable[[], object], leads: Callable[[], bool], depths: Depths, levels: ReadLevels
    ) -> None:
        self._count, self._leads, self._depths, self._levels = count, leads, depths, levels
        self._stop: Callable[[], bool] = bool
        self._rounds = Rounds("counts", self._look, EVERY, fault="events are not counted now", logger=logger)
        fault = "the lengths of queues are not noted now"
        self._measuring = Rounds(
            "depths", self._measure, lambda: until_next_look(time.time()), fault=fault, logger=logger
        )

    def start(self, stop: Callable[[], bool]) -> None:
        """Begin in a thread of its own, until `stop()`."""
        self._stop = stop
        self._rounds.start()
        self._measuring.start()

    def _look(self) -> None:
        if self._stop():
            self._rounds.stop()
            self._measuring.stop()
        elif self._leads():
            self._count()

    def _measure(self) -> None:
        if self._stop():
            self._measuring.stop()
        elif self._leads():
            self._depths.note(self._levels())
