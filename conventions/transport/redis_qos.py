"""What a channel of our Redis transport holds: how many messages, by number, bytes and length of job, and how it returns one."""

import math
from collections.abc import Callable, Mapping
from heapq import nlargest
from typing import Any

from kombu.transport import virtual

NO_LIMIT = 1 << 40  # bytes
RESERVE_AT_MOST = 256  # messages in one read
SMALL = 4096  # bytes of a message that is not counted in bytes
REQUEUE_AFTER = 1.0  # seconds until a rejected message comes again: at once, it would come a thousand times a second


class QoS(virtual.QoS):
    """How many messages the channel may hold; who holds them is known to `InFlight`.

    Attributes:
        ahead: messages for each process that `prefetch_count` counts. Where they are several, also where no more are held than
            that, the next ones are read when half of them have ended, or a whole read fits, so that one read brings
            several; else whenever there is room.
        room: says how many messages of short jobs so many processes take; `None`: `prefetch_count` is all that may be held.
        most_bytes: what all messages that are held may have together, beside one for each process; 0: any.
        starves: says whether a process is free, and nothing waits here for it: then it is read for, however few fit.
    """

    ahead = 1
    most_bytes = 0
    room: Callable[[float], int] | None = None
    starves: Callable[[], bool] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # kombu has few types
        self._slow: set[str] = set()
        self._aside: dict[str, bool] = {}  # whether they were slow
        self._large: dict[str, int] = {}  # bytes of those that are not small

    @property
    def _limit(self) -> int:
        if not (self.room and self.prefetch_count):
            return self.prefetch_count
        left = max(self.room_for_long, 0)
        return max(self.prefetch_count, len(self._slow) + self.room(left))

    @property
    def _held(self) -> int:
        return len(self._delivered) - len(self._dirty) - len(self._aside)

    def set_aside(self, delivery_tag: str) -> None:
        """A message that is held waits for the rate limit of its task, and takes no room from others until `take_back`."""
        self._aside[delivery_tag] = delivery_tag in self._slow
        self._slow.discard(delivery_tag)

    def take_back(self, delivery_tag: str) -> None:
        """It counts again."""
        if self._aside.pop(delivery_tag, False):
            self._slow.add(delivery_tag)

    def note_sizes(self, sizes: Mapping[str, int]) -> None:
        """Messages that were delivered have so many bytes; of small ones the number is bound enough."""
        self._large.update(sizes)

    @property
    def bytes_left(self) -> int:
        """How many more bytes may be held, beside the largest message for each process; not above zero: no more."""
        if not self.most_bytes:
            return NO_LIMIT
        if self._large:
            self._large = {
                tag: size for tag, size in self._large.items() if tag in self._delivered and tag not in self._dirty
            }
        sizes = self._large.values()
        return self.most_bytes - sum(sizes) + sum(nlargest(self._processes, sizes))  # what runs may be large

    @property
    def _processes(self) -> int:
        return max(self.prefetch_count // max(self.ahead, 1), 1)

    @property
    def _is_full(self) -> bool:
        """Whether the bytes are used up, and each process has a message."""
        if not self._large or self.bytes_left > 0 or self._held < self._processes:
            return False
        return self.starves is None or not self.starves()

    @property
    def has_large(self) -> bool:
        """Whether messages are held that are not small."""
        return bool(self._large)

    @property
    def bytes_for_next(self) -> int:
        """How many bytes those may have that the next read brings, beside small ones; 0: only small ones may come."""
        left = self.bytes_left
        if left > 0:
            return left
        return 0 if self._is_full else 1  # one always comes where a process has none

    @property
    def takes_large_again(self) -> bool:
        """Whether a read that waits without them should end, since those that are not small have room."""
        return not self._is_full and (self.bytes_left > self.most_bytes // 4 or self._held < self._processes)

    def mark_slow(self, delivery_tag: str) -> None:
        """A message that is held is of a job that may take long, or does: it needs a process of its own."""
        self._slow.add(delivery_tag)

    def _count_slow(self) -> int:
        self._slow = {tag for tag in self._slow if tag in self._delivered and tag not in self._dirty}
        return len(self._slow)

    @property
    def room_for_slow(self) -> float:
        """How many more slow ones may be held, by `prefetch_count`; below zero: some are too many."""
        return self.prefetch_count - self._count_slow() if self.prefetch_count else math.inf

    @property
    def room_for_long(self) -> float:
        """How many processes the slow ones leave; below zero: some wait."""
        return self.prefetch_count / max(self.ahead, 1) - self._count_slow() if self.prefetch_count else math.inf

    @property
    def is_beyond_prefetch(self) -> bool:
        """Whether more are held than without `room`."""
        return 0 < self.prefetch_count < self._held

    def can_consume(self) -> bool:
        """Whether the next messages may be read."""
        limit, held = self._limit, self._held
        if not limit or held >= limit:
            return not limit
        if limit <= self.prefetch_count:  # which a group of one process may be more than half of
            return self.ahead <= 1 or held <= limit // 2 or (self.starves is not None and self.starves())
        slow = len(self._slow)  # they may be there for hours
        return held - slow <= max((limit - slow) // 2, limit - slow - RESERVE_AT_MOST)

    def can_consume_max_estimate(self) -> int | None:
        """How many messages the next read may bring; `None`: any number."""
        limit = self._limit
        return max(limit - self._held, 0) if limit else None

    def let_go(self, delivery_tag: str) -> None:
        """The message is in other hands, or gone; Redis knows."""
        self._quick_ack(delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """The message has ended."""
        self.channel.in_flight.acknowledge(delivery_tag)
        self._quick_ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Return the message, or drop it: whoever rejects for good has recorded why."""
        if requeue:
            self.channel.in_flight.give_back(delivery_tag, wait=REQUEUE_AFTER, counted=True)
        else:
            self.channel.in_flight.acknowledge(delivery_tag)
        self._quick_ack(delivery_tag)

    def restore_unacked(self, client: Any = None) -> list[Any]:  # noqa: ARG002  # kombu's signature
        """Return what has not started; what runs goes on, and is acknowledged when it ends, channel or not."""
        self._flush()  # type: ignore[no-untyped-call]  # kombu has few types
        self.channel.in_flight.give_back_unstarted(set(self._delivered))
        self._delivered.clear()
        return []

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """The sweep of `InFlight` does this."""
