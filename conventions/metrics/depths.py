"""`Depths`: how long each queue was at the end of each minute, for two hours. What came in follows from it, and from what went out."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from conventions.broker.queue_level import QueueLevel
from conventions.core.units import count_in, milliseconds
from conventions.metrics.measures import MINUTE
from conventions.storage.redis_store import Store

KEEP = timedelta(hours=2, minutes=10)
EVERY = 10.0  # seconds between two looks; the last look of a minute counts


class Depths:
    """Those of one application. Each method raises RedisError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, levels: Mapping[str, QueueLevel]) -> None:
        """Keep how many messages of each queue are ready or at a worker now."""
        redis: Any = self._store.redis
        seconds, _ = redis.time()
        depths = {name: (level.ready or 0) + (level.in_flight or 0) for name, level in levels.items()}
        key = self._key(int(seconds) * 1000 // MINUTE)
        if depths:
            with redis.pipeline(transaction=True) as pipe:
                pipe.hset(key, mapping=depths)
                pipe.pexpire(key, milliseconds(KEEP))
                pipe.execute()

    def read(self, first: int, last: int) -> dict[int, dict[str, int]]:
        """The depth of each queue at the end of each minute since the epoch, from `first` to `last`; those without a look are missing."""
        redis: Any = self._store.redis
        with redis.pipeline(transaction=False) as pipe:
            for minute in range(first, last + 1):
                pipe.hgetall(self._key(minute))
            found = pipe.execute()
        return {
            first + index: {name.decode(): count_in(depth) for name, depth in one.items()}
            for index, one in enumerate(found)
            if one
        }

    def _key(self, minute: int) -> str:
        return self._store.key("counts", "depth", str(minute))


ReadLevels = Callable[[], Mapping[str, QueueLevel]]
"""Reads the levels of all known queues."""
