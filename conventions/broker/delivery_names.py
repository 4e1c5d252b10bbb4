"""The names of deliveries. Each begins with the mark of the process that made it, so that somebody can say later which worker it was."""

import itertools
import json
import os
from datetime import timedelta
from secrets import token_urlsafe
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from conventions.storage.redis_store import Store

KEEP = timedelta(days=1)  # how long the marks of a worker that says nothing more are kept
MARK = 12  # characters: 72 random bits


class _Mark:
    """That of this process, with a count of what it has named."""

    def __init__(self) -> None:
        self.renew()
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.text, self.named = token_urlsafe(MARK * 3 // 4), itertools.count()


_mark = _Mark()


def new_name() -> str:
    """A name that no delivery has, of any process."""
    return f"{_mark.text}{next(_mark.named):x}"


class WorkerName(NamedTuple):
    """Which worker took a delivery; both are `None` where nobody knows it.

    Attributes:
        name: its host name.
        release: of the team's code that it ran; `None` also where it names none.
    """

    name: str | None
    release: str | None


UNKNOWN = WorkerName(None, None)
UNREADABLE = (ResponseError, ValueError, TypeError, RecursionError)  # raised by what another program has written


class DeliveryNames:
    """Says which worker took a delivery. A worker is remembered for a day after it has said the last time that it lives.

    Args:
        store: where claims are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def say(self, worker: str, release: str | None) -> None:
        """The deliveries that this process names are of this worker. Raises: RedisError."""
        self._store.redis.set(self._key(_mark.text), json.dumps([worker, release]), px=KEEP)

    def worker_of(self, delivery: str) -> WorkerName:
        """The worker that took it. Not known of one that died within half a second after its own start, or a day ago. Raises: RedisError."""
        try:
            found: Any = self._store.redis.get(self._key(delivery[:MARK]))
            name, release = json.loads(found or b"")
        except UNREADABLE:
            return UNKNOWN
        return WorkerName(str(name), None if release is None else str(release))

    def _key(self, mark: str) -> str:
        return self._store.key("deliveries_of", mark)
