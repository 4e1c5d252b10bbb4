"""`ReadAhead`: the messages that RabbitMQ has sent to a worker, and whether the worker reads more of them.

RabbitMQ sends from each queue up to the prefetch count, and knows no order between queues. A worker takes the most urgent of what it has.
A message must not wait behind a job of hours while another worker is idle. So there are two states:

| state | event | next state | what is done |
|---|---|---|---|
| reads | a message has waited for `REST_AFTER`, and there is no room | rests | consumers are cancelled, what waits goes back |
| reads | the last room is taken, and nothing may wait here | rests | the same |
| reads | the worker takes more or fewer messages at a time | rests | the same: RabbitMQ tells only new consumers |
| rests | there is room | reads | consumers begin again |
"""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple, Protocol

REST_AFTER = 1.0  # seconds that a message waits in a busy worker before it goes back, for an idle one


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


class Consumers(Protocol):
    """RabbitMQ's consumers, as a channel offers them. With a closed channel each call does nothing: RabbitMQ has taken all messages back."""

    def begin(self, reader: str, /) -> None:
        """Let RabbitMQ send what is in the queues of this reader."""

    def cancel(self, reader: str, /) -> None:
        """Let it send no more. Messages may still come during the call."""

    def give_back(self, tag: int, /) -> None:
        """Return a message to its queue."""


class ReadAhead:
    """What one channel has read, and how it goes on.

    Args:
        consumers: those of the channel.

    Attributes:
        limit: how many messages the worker takes at a time; 0: all.
        taken: the delivery tags of those that it has and that have not ended.
        rests: whether it reads nothing now.
        none_may_wait: whether no message may wait here while a job runs, as in a worker that runs jobs in its main thread.
    """

    def __init__(self, consumers: Consumers) -> None:
        self.limit, self.none_may_wait = 0, False
        self._consumers = consumers
        self.anew()

    def anew(self) -> None:
        """Begin with a new connection: there is no reader, nothing has come, and it reads."""
        self.taken: set[int] = set()
        self.rests = False
        self._readers: dict[str, bool] = {}  # whether RabbitMQ has its consumers
        self._waiting: list[Arrived] = []
        self._numbers = count()

    def __len__(self) -> int:
        """How many wait here."""
        return len(self._waiting)

    @property
    def room(self) -> int:
        """How many more the worker takes now."""
        return self.limit - len(self.taken) if self.limit else len(self._waiting) + 1

    @property
    def waits_for_room(self) -> bool:
        """Whether there is something to do as soon as a message has ended."""
        return bool(self._waiting) or self.rests

    # Readers.

    def add_reader(self, reader: str) -> None:
        """Read for one more consumer of Celery's."""
        self._readers[reader] = False
        if not self.rests:
            self._begin(reader)

    def remove_reader(self, reader: str) -> bool:
        """Read no more for it: what waits goes back. Returns whether others are left."""
        self._stop(reader)
        del self._readers[reader]
        return bool(self._readers)

    def _begin(self, reader: str) -> None:
        self._readers[reader] = True
        self._consumers.begin(reader)

    def _stop(self, reader: str) -> None:
        if self._readers[reader]:
            self._readers[reader] = False
            self._consumers.cancel(reader)
        for one in [one for one in self._waiting if one.reader == reader]:
            self._waiting.remove(one)
            self._consumers.give_back(one.tag)
        heapq.heapify(self._waiting)

    # Messages.

    def arrived(self, urgency: int, tag: int, reader: str, hand_over: Callable[[], Any], at: float) -> None:
        """Keep a message until there is room."""
        heapq.heappush(self._waiting, Arrived(urgency, next(self._numbers), tag, hand_over, reader, at))

    def hand_over(self) -> bool:
        """Give the worker what it has room for, the most urgent first. Returns whether that was anything."""
        handed = False
        while self._waiting and self.room > 0:
            arrived = heapq.heappop(self._waiting)
            self.taken.add(arrived.tag)
            if self.none_may_wait and self.room < 1:
                self.rest()  # before the job runs, in this call
            arrived.hand_over()
            handed = True
        return handed

    def ended(self, tag: int, *, and_before: bool = False) -> None:
        """A message that was taken has ended; `and_before`: so have all that came before it."""
        if and_before:
            self.taken = {one for one in self.taken if one > tag}
        else:
            self.taken.discard(tag)

    # From one state to the other.

    def rest(self) -> None:
        """Read nothing, and give back what waits here."""
        self.rests = True
        for reader in list(self._readers):
            self._stop(reader)

    def rest_if_full(self, now: float) -> None:
        """Rest if a message has waited too long for room; `now` in seconds of the monotonic clock."""
        if not self.rests and self.room < 1 and any(now - one.at >= REST_AFTER for one in self._waiting):
            self.rest()

    def go_on(self) -> None:
        """A message has ended: give the worker the next one, or read again."""
        if self.rests and self.room > 0:
            self.rests = False
            for reader in list(self._readers):
                self._begin(reader)
        self.hand_over()
