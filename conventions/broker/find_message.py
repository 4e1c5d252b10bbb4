"""`find`: where one message is that has not ended, and why it waits there."""

from typing import Any, Literal, NamedTuple, TypeAlias, cast

from conventions.broker.codec import changes_in, headers_in
from conventions.core.time_units import count_in
from conventions.storage.redis_store import Store

Spot: TypeAlias = Literal["ready", "delayed", "held", "running", "ended", "later"]
Why: TypeAlias = Literal["key", "rate", "pause", ""]

LAST = 1e14  # milliseconds since the epoch: in the year 5138


class FoundMessage(NamedTuple):
    """A message in Redis.

    Attributes:
        place: `held`: a worker has read it, and has not begun it; `ended`: only its worker must acknowledge it; `later`: a later
            release has written it, and nothing else of it is known.
        queue: its name.
        headers: those that it would be delivered with.
        generation: how often it was redriven.
        attempt: which one it is in, or comes next, from 1.
        before: of a ready one, how many messages of its queue come before it.
        due_at: of a delayed one, when it is due, in seconds since the epoch.
        why: of a delayed one, what it waits for: `key`, its idempotency key is in use; `rate`, the rate limit of its task; `pause`, its task is
            paused; or only for its time.
        payload: the message as it was sent.
    """

    place: Spot
    queue: str
    headers: dict[str, Any]
    generation: int
    attempt: int
    before: int
    due_at: float | None
    why: Why
    payload: bytes = b""


def find(store: Store, message_id: str) -> FoundMessage | None:
    """Look for a message by its id. Raises: RedisError."""
    found = store.run("find_message", [message_id])
    if found is None:
        return None
    place, queue, payload, generation, attempt, changes, number, why = found
    headers = headers_in(payload) | changes_in(changes)
    retries = headers.get("retries")
    first = retries + 1 if isinstance(retries, int) else 1
    is_delayed = place == b"delayed"
    value = _number(number)
    return FoundMessage(
        place=cast("Spot", place.decode()),
        queue=queue.decode(errors="replace"),
        headers=headers,
        generation=count_in(generation),
        attempt=count_in(attempt) or first,
        before=0 if is_delayed else int(value),
        due_at=value / 1000 if is_delayed and value else None,
        why=cast("Why", why.decode()),
        payload=payload,
    )


def _number(text: bytes) -> float:
    """A number, or 0 for what another program wrote, or a time that no calendar has."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value < LAST else 0.0
