"""What Redis has of a message, whether it is a string or a hash: see `queues.lua`."""

from typing import Any

from conventions.store import Store

SENT = ("score", "queue", "priority", "digest", "generation", "payload")


def stored(store: Store, tag: str) -> dict[str, bytes]:
    """The fields of a message, with its `receipt` while it is held, and `started`; nothing of one that is not there."""
    redis: Any = store.redis
    key = store.key("message", tag)
    kind = redis.type(key)
    if kind == b"hash":
        found = {name.decode(): value for name, value in redis.hgetall(key).items()}
    elif kind == b"string":
        value = redis.get(key)  # it may have ended since
        found = dict(zip(SENT, value.split(b"\x1f", len(SENT) - 1), strict=True)) if value else {}
    else:
        found = {}
    for name, place in (("receipt", "receipts"), ("started", "started")):
        value = redis.hget(store.key(place), tag)
        if value is not None:
            found[name] = value
    return found


def deliveries(store: Store, tag: str) -> int:
    """How often a message was handed out and did not come back in good order, as far as no start has been counted instead."""
    found = stored(store, tag)
    return int(found.get("deliveries", 0)) + ("receipt" in found and "started" not in found)
