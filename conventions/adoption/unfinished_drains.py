"""Drains that were killed: each has left messages aside, beside its old queue, until the next drain of that queue.

Redis of ours has a note of each that has begun, until it has ended, so that the way back does not leave those messages behind.
"""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError

from conventions.core.errors import ConfigurationError
from conventions.core.redis_address import shown
from conventions.storage.redis_store import Store


def note_begin(store: Store, queue: str) -> None:
    """A drain begins. `queue` is its name and its place, for people.

    Raises:
        ConfigurationError: our Redis does not answer.
    """
    redis: Any = store.redis
    try:
        redis.hset(store.key("drains"), queue, datetime.now(UTC).isoformat(timespec="seconds"))
    except RedisError as error:
        raise ConfigurationError([f"nothing is moved: our own Redis {shown(store.url)}: {error}"]) from error


def note_end(store: Store, queue: str) -> None:
    """It has settled or given back each message that it has taken."""
    redis: Any = store.redis
    with suppress(RedisError):  # then the next drain of this queue says so
        redis.hdel(store.key("drains"), queue)


def unfinished_drains(store: Store) -> list[str]:
    """Queues whose last drain has not come to its end. Raises: RedisError."""
    redis: Any = store.redis
    return sorted(name.decode() for name in redis.hkeys(store.key("drains")))
