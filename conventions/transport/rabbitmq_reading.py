"""`ReadAhead`: the messages that RabbitMQ has sent to a worker, and that the worker has no room for yet.

RabbitMQ sends from each queue up to the prefetch count, and knows no order between queues. A worker takes the most urgent of what it has.
"""

import heapq
import time
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple


class Arrived(NamedTuple):
    """A message that waits in this process.

    Attributes:
        urgency: 0 is the most urgent.
        number: in the order of arrival.
        tag: its delivery tag.
        hand_over: gives it to the worker.
        reader: the consumer tag that it came for.
        at: when it came, in seconds of the monotonic clock.
    """

    urgency: int
    number: int
    tag: int
    hand_over: Callable[[], Any]
    reader: str
    at: float


class ReadAhead:
    """Those of one channel.

    Attributes:
        limit: how many messages the worker takes at a time; 0: all.
        taken: the delivery tags of those that it has and that have not ended.
    """

    def __init__(self) -> None:
        self.limit = 0
        self.taken: set[int] = set()
        self._waiting: list[Arrived] = []
        self._numbers = count()

    def __len__(self) -> int:
        """How many wait here."""
        return len(self._waiting)

    @property
    def room(self) -> int:
        """How many more the worker takes now."""
        return self.limit - len(self.taken) if self.limit else len(self._waiting) + 1

    def add(self, urgency: int, tag: int, reader: str, hand_over: Callable[[], Any]) -> None:
        """Keep a message until there is room."""
        arrived = Arrived(urgency, next(self._numbers), tag, hand_over, reader, time.monotonic())
        heapq.heappush(self._waiting, arrived)

    def take(self) -> Arrived | None:
        """The most urgent message, which counts as taken from now on; `None`: there is none, or no room."""
        if not self._waiting or self.room < 1:
            return None
        arrived = heapq.heappop(self._waiting)
        self.taken.add(arrived.tag)
        return arrived

    def ended(self, tag: int, *, and_before: bool = False) -> None:
        """A message that was taken has ended; `and_before`: so have all that came before it."""
        if and_before:
            self.taken = {one for one in self.taken if one > tag}
        else:
            self.taken.discard(tag)

    def empty(self, reader: str) -> list[int]:
        """Keep none of one reader any more. Returns their delivery tags."""
        gone = [one for one in self._waiting if one.reader == reader]
        self._waiting = [one for one in self._waiting if one.reader != reader]
        heapq.heapify(self._waiting)
        return [one.tag for one in gone]

    def waits_since(self) -> float | None:
        """When the message came that has waited longest."""
        return min((one.at for one in self._waiting), default=None)
