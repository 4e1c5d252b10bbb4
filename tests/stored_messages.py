"""What Redis has of a message, whether it is a string or a hash: see `queues.lua`."""

from typing import Any

from conventions.storage.redis_store import Store

SENT = ("score", "queue", "priority", "digest", "generation", "payload")


def stored(store: Store, tag: str) -> dict[str, bytes]:
    """The fields of a message, with its `receipt` while it is held, and `started`; nothing of one that is not there."""
    key = store.key("message", tag)
    # In one step: a worker that runs may make a hash of it, or end it, between two reads.
    pipe: Any = store.redis.pipeline(transaction=True)
    pipe.get(key).hgetall(key).hget(store.key("receipts"), tag).hget(store.key("started"), tag)
    text, fields, receipt, started = pipe.execute(raise_on_error=False)  # one of the first two is of the wrong type
    if isinstance(text, bytes):
        found = dict(zip(SENT, text.split(b"\x1f", len(SENT) - 1), strict=True))
    else:
        found = {name.decode(): value for name, value in fields.items()}
    return found | {name: value for name, value in (("receipt", receipt), ("started", started)) if value is not None}


def deliveries(store: Store, tag: str) -> int:
    """How often a message was handed out and did not come back in good order, as far as no start has been counted instead."""
    found = stored(store, tag)
    return int(found.get("deliveries", 0)) + ("receipt" in found and "started" not in found)
