"""Data in Redis that a later release wrote in an unknown form. This release leaves it alone and lists it here."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from conventions.storage.redis_store import Store


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """One key that was left as it is.

    Attributes:
        name: the key without the application's prefix, such as `message:<tag>` or `claim:<task>:<key>`.
        kind: its type in Redis.
        seen_at: when a worker last found it; aware, by the server's clock.
    """

    name: str
    kind: str
    seen_at: datetime


def left_alone(store: Store) -> list[LeftAlone]:
    """The keys that still exist, last found first; at most 1,000. Raises: RedisError."""
    redis: Any = store.redis
    noted = redis.zrange(store.key("unknown"), 0, -1, desc=True, withscores=True)
    with redis.pipeline(transaction=False) as pipe:
        for name, _ in noted:
            pipe.type(store.key(_text(name)))
        kinds = pipe.execute()
    return [
        LeftAlone(_text(name), kind.decode(), datetime.fromtimestamp(seen, UTC))
        for (name, seen), kind in zip(noted, kinds, strict=True)
        if kind != b"none"
    ]


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
