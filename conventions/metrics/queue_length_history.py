"""`Depths`: how long each queue was at the end of each minute, for two hours. What was sent follows from it, and from what ended."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from conventions.broker.queue_level import QueueLevel
from conventions.core.time_units import count_in, milliseconds
from conventions.metrics.event_sums import MINUTE
from conventions.storage.redis_store import Store

KEEP = timedelta(hours=2, minutes=10)
EVERY = 10.0  # seconds between two looks; the last look of a minute counts
BEFORE_ITS_END = 0.3  # seconds before the end of a minute in which there is one: ends are counted by the minute, so it should be at its edge


def until_next_look(now: float) -> float:
    """Seconds until the next look. `now`: seconds since the epoch."""
    left = 60 - now % 60 - BEFORE_ITS_END
    return left if BEFORE_ITS_END < left < EVERY else EVERY  # there has just been one where less is left


class Depth(NamedTuple):
    """How long a queue was.

    Attributes:
        ready: messages that were ready, or at a worker.
        delayed: those that were not due; `None`: a recorder of the release before has looked, which does not note them.
    """

    ready: int = 0
    delayed: int | None = 0


class Depths:
    """Those of one application. Each method raises RedisError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, levels: Mapping[str, QueueLevel]) -> None:
        """Keep how many messages of each queue are ready or at a worker now, and how many are not due."""
        redis: Any = self._store.redis
        seconds, _ = redis.time()
        depths = {name: (level.ready or 0) + (level.in_flight or 0) for name, level in levels.items()}
        minute = int(seconds) * 1000 // MINUTE
        if depths:
            with redis.pipeline(transaction=True) as pipe:
                pipe.hset(self._key("depth", minute), mapping=depths)
                pipe.pexpire(self._key("depth", minute), milliseconds(KEEP))
                pipe.hset(
                    self._key("delayed", minute), mapping={name: level.delayed or 0 for name, level in levels.items()}
                )
                pipe.pexpire(self._key("delayed", minute), milliseconds(KEEP))
                pipe.execute()

    def read(self, first: int, last: int) -> dict[int, dict[str, Depth]]:
        """The depth of each queue at the end of each minute since the epoch, from `first` to `last`; those without a look are missing."""
        ready, delayed = self._by_minute("depth", first, last), self._by_minute("delayed", first, last)
        return {
            minute: {name: Depth(count, delayed.get(minute, {}).get(name)) for name, count in found.items()}
            for minute, found in ready.items()
        }

    def moved(self, first: int, last: int) -> dict[int, dict[str, int]]:
        """How many messages people moved into and out of each queue, by minute; those without are missing. The script that moves counts them."""
        return self._by_minute("moved", first, last)

    def _by_minute(self, name: str, first: int, last: int) -> dict[int, dict[str, int]]:
        redis: Any = self._store.redis
        with redis.pipeline(transaction=False) as pipe:
            for minute in range(first, last + 1):
                pipe.hgetall(self._key(name, minute))
            found = pipe.execute()
        return {
            first + index: {queue.decode(errors="replace"): count_in(count) for queue, count in one.items()}
            for index, one in enumerate(found)
            if one
        }

    def _key(self, name: str, minute: int) -> str:
        return self._store.key("counts", name, str(minute))


ReadLevels = Callable[[], Mapping[str, QueueLevel]]
"""Reads the levels of all known queues."""
