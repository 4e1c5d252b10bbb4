"""`QueueLevel`: how many messages a queue has now, and since when the oldest of them is ready."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from conventions.broker.codec import changes_in, headers_in
from conventions.broker.header_names import ENQUEUED_AT, READY_AT
from conventions.core.time_units import moment
from conventions.storage.redis_store import Store


class QueueLevel(NamedTuple):
    """What is in one queue. A number that this broker does not tell is `None`.

    Attributes:
        ready: messages that lack nothing but a free worker.
        delayed: those that are not due: sent for later, waiting for their next attempt, or for their key.
        parked: of the delayed ones, those whose key is in use.
        in_flight: those that workers have.
        oldest: seconds since the oldest ready one is ready, by the clock of who sent it; `None` also where none is ready.
    """

    ready: int | None = None
    delayed: int | None = None
    parked: int | None = None
    in_flight: int | None = None
    oldest: float | None = None


def levels_in(store: Store, queues: Sequence[str]) -> dict[str, QueueLevel]:
    """The levels of queues in Redis. Raises: RedisError."""
    if not queues:
        return {}
    now, *found = store.run("queue_levels", list(queues))
    return {name: _level(int(now) / 1000, one) for name, one in zip(queues, found, strict=True)}


def _level(now: float, found: Sequence[Any]) -> QueueLevel:
    ready, delayed, parked, in_flight, *heads = found
    since = [at for at in map(_ready_since, heads[::2], heads[1::2]) if at is not None]
    oldest = max(0.0, now - min(since)) if since else None
    return QueueLevel(_known(ready), _known(delayed), _known(parked), _known(in_flight), oldest)


def _known(count: int) -> int | None:
    return None if count < 0 else count  # below 0: the key is no queue of ours


def _ready_since(payload: bytes, changes: bytes) -> float | None:
    """Seconds since the epoch; `None` if the message does not say it."""
    headers = headers_in(payload) | changes_in(changes)
    eta = None if READY_AT in headers else headers.get("eta")
    found = moment(headers.get(READY_AT)) or moment(eta) or moment(headers.get(ENQUEUED_AT))
    return found.timestamp() if found is not None else None
