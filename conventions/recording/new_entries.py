"""`NewEntries`: reads what is new in the journal, each entry once: it is counted, and waits in memory until SQL takes it.

The thread that counts reads ahead of the one that records, since counts must not wait for SQL (protocol 15).
"""

import threading
from collections import deque
from contextlib import suppress
from typing import Any, TypeAlias

from redis.exceptions import ResponseError

from conventions.metrics.event_counter import EventCounter
from conventions.storage.redis_store import Store

Found: TypeAlias = dict[bytes, dict[bytes, bytes]]
"""Entries in the order of the journal: the fields of each, by its id."""

GROUP = "recorder"
AT_ONCE = 500  # entries that one call reads: the server serves nobody else during a call
MOST_AHEAD = 8 * 1024 * 1024  # bytes that wait in memory; what is counted beyond that is read once more for SQL


class NewEntries:
    """What one recorder has read of the journal and not recorded yet. Two threads use it.

    Args:
        store: where the journal is.
        name: of the recorder, as a consumer of the group.
        counter: counts what is read.

    Attributes:
        is_lost: whether the recorder may have read entries that do not wait here.
    """

    def __init__(self, store: Store, name: str, counter: EventCounter) -> None:
        self._store, self._name, self._counter = store, name, counter
        self._key = store.key("journal")
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Found, int]] = deque()  # parts, each with its bytes
        self._bytes = 0
        self._is_recording = False
        self.is_lost = True  # a process of this name may have read entries before

    def take(self, limit: int, block: float) -> Found:
        """The next entries for SQL. Raises: RedisError: nothing is lost.

        Args:
            limit: the most entries.
            block: seconds to wait for the first one.
        """
        found: Found = {}
        with self._lock:
            self._is_recording = True
            try:
                self._fill(found, limit, block)
            except BaseException:
                self.is_lost = True  # what was found so far
                raise
        return found

    def _fill(self, found: Found, limit: int, block: float) -> None:
        may_be_more = True
        while len(found) < limit and (self._waiting or may_be_more):
            if not self._waiting:
                wanted = min(limit - len(found), AT_ONCE)
                may_be_more = self._read(wanted, 0.0 if found else block) == wanted
            if self._waiting:
                self._move(found, limit)

    def _move(self, found: Found, limit: int) -> None:
        """Move what waits, up to the limit."""
        part, size = self._waiting.popleft()
        if len(part) <= limit - len(found):
            found |= part
            self._bytes -= size
            return
        for id_ in list(part)[: limit - len(found)]:
            found[id_] = part.pop(id_)
        rest = _size(part)
        self._bytes -= size - rest
        self._waiting.appendleft((part, rest))

    def read_ahead(self) -> None:
        """Count what is there. It waits here for SQL, as long as there is room. Raises: RedisError: nothing is lost."""
        # Somebody has deleted the journal, with its group: the recorder finds that out, too.
        with self._lock, suppress(ResponseError):
            while self._is_recording and self._bytes < MOST_AHEAD and self._read(AT_ONCE, 0.0) == AT_ONCE:
                pass
        self._counter.count_all()

    def _read(self, count: int, block: float) -> int:
        """Read and count some. Returns how many."""
        redis: Any = self._store.redis
        milliseconds = max(1, int(block * 1000)) if block else None  # 0 would block for ever
        try:
            new = redis.xreadgroup(GROUP, self._name, {self._key: ">"}, count=count, block=milliseconds)
        except BaseException:
            self.is_lost = True  # the server may have given some
            raise
        if not new:
            return 0
        part: Found = dict(new[0][1])
        size = _size(part)
        self._waiting.append((part, size))
        self._bytes += size
        self._counter.count(part)
        return len(part)

    def waits(self, id_: bytes) -> bool:
        """Whether an entry waits here. Only the thread that records may ask: it alone takes entries away."""
        return any(id_ in part for part, _ in list(self._waiting))

    def forget(self) -> None:
        """Forget what waits, and read nothing ahead until the next `take`: the server gives it again to whoever records it."""
        with self._lock:
            self.is_lost = True
            self._waiting.clear()
            self._bytes = 0
            self._is_recording = False


def _size(part: Found) -> int:
    return sum(sum(map(len, fields.values())) for fields in part.values())
