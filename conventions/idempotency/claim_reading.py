"""`ClaimReading`, `CancelMark`: what a claim, and the mark of a cancel, say of a job, for somebody who only looks."""

import json
from typing import Any, NamedTuple

from conventions.core.time_units import count_in
from conventions.idempotency.interrupted_start import InterruptedStart, interrupted_starts
from conventions.storage.redis_store import Store


class ClaimReading(NamedTuple):
    """A claim.

    Attributes:
        state: `granted`, which is a job that another one comes before in its process; `running`, `done`, `released`, `continued`, `dead`; or
            `unknown`, which a later release has written.
        message_id: of the message that has it, or had it last.
        generation: how often that one was redriven.
        attempt: of that message, from 1.
        began_at: when its holder took it, in seconds since the epoch, by the server's clock.
        until: when its lease, or its wait, is over; the same.
        lapsed: whether that is over.
        has_result: whether the result of a job that is done is remembered; not so after Redis was restored from a copy.
        result: that result; of a dead job, the error as text.
        token: of the delivery that holds it, or held it last.
        interrupted: starts without an outcome that the journal lacks.
    """

    state: str
    message_id: str
    generation: int
    attempt: int
    began_at: float
    until: float
    lapsed: bool
    has_result: bool
    result: Any
    token: str = ""
    interrupted: tuple[InterruptedStart, ...] = ()


def read_claim(store: Store, claim: str) -> ClaimReading | None:
    """Read a claim by its name, `<task>:<key>`. `None`: nothing is remembered of it. Raises: RedisError."""
    found = store.run("read_claim", [claim])
    if found is None:
        return None
    state, message_id, generation, attempt, fence, until, lapsed, result, token, kept = found
    try:
        value, has_result = json.loads(result), state == b"done"
    except (ValueError, RecursionError):  # it is empty, or another program wrote it
        value, has_result = None, False
    return ClaimReading(
        state=state.decode(errors="replace"),
        message_id=message_id.decode(errors="replace"),
        generation=count_in(generation),
        attempt=count_in(attempt),
        began_at=count_in(fence) / 1_000_000,  # a fence is the time in microseconds
        until=count_in(until) / 1000,
        lapsed=bool(lapsed),
        has_result=has_result,
        result=value,
        token=token.decode(errors="replace"),
        interrupted=interrupted_starts(kept),
    )


class CancelMark(NamedTuple):
    """A message is cancelled.

    Attributes:
        due_at: when it would have been due, in seconds since the epoch, where it was moved to its queue before.
    """

    due_at: float | None


def read_cancel(store: Store, message_id: str, generation: int) -> CancelMark | None:
    """The mark of a message; `None`: it is not cancelled, or was before it was redriven. Raises: RedisError."""
    mark, due = store.redis.mget(store.key("cancel", message_id), store.key("was_due", message_id))
    if mark is None or (mark != b"any" and count_in(mark) < generation):
        return None
    return CancelMark(None if due is None else count_in(due) / 1000)
