"""Messages that wait, as somebody looks through them who is no worker, and ends some: `execution/purge.py`, `recording/restored_redis.py`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any, Literal, NamedTuple

from redis.exceptions import ResponseError

from conventions.broker.codec import headers_in
from conventions.broker.redis_broker import Broker
from conventions.core.error_text import clean
from conventions.core.errors import JournalFull
from conventions.storage.layout_version import refused
from conventions.storage.redis_store import Store

type WaitingPlace = Literal["queue", "delayed", "inflight"]

AT_ONCE = 500  # messages that one step ends: meanwhile the server serves nobody else
MOST_BYTES = 4 * 1024 * 1024  # of payloads in one look, unless one message is larger
NOT_DONE = ("", "", 0)


class Waiting(NamedTuple):
    """A message where it was seen.

    Attributes:
        place: of its queue.
        score: where it stands there, as the server writes it; another one means that it has moved.
        generation: how often it was redriven.
        attempt: that comes next, of one that was tried; else 0.
    """

    queue: str
    place: WaitingPlace
    tag: bytes
    score: bytes
    payload: bytes
    generation: int
    attempt: int

    @property
    def headers(self) -> dict[str, Any]:
        """Those of its message; none of what is no message."""
        return headers_in(self.payload)

    @property
    def message_id(self) -> str:
        """The id of the message; of what has none, the name under which it is here."""
        id_ = self.headers.get("id")
        return clean(id_ if isinstance(id_, str) and id_ else self.tag.decode(errors="backslashreplace"))


@dataclass(frozen=True, slots=True)
class End:
    """How a message ends.

    Attributes:
        message_id: its id.
        event: for the journal, or empty.
        join: how its batch counts it, or empty.
        done: claim, fingerprint and ms to keep the claim, where its job is known to be done.
    """

    message_id: str
    event: bytes = b""
    join: str = ""
    done: tuple[str, str, int] = NOT_DONE


def look(broker: Broker, queue: str, place: WaitingPlace, leave_out: int = 0, count: int = AT_ONCE) -> list[Waiting]:
    """The first messages of one place, without the very first `leave_out`. Raises: RedisError."""
    found = broker.store.run("waiting", [queue, place, leave_out, count, MOST_BYTES])
    return [
        Waiting(queue, place, tag, score, payload, _number(generation), _number(attempt))
        for tag, score, payload, generation, attempt in found
    ]


def end(store: Store, ends: Sequence[tuple[Waiting, End]], *, journal_limit: int = 0) -> list[bool]:
    """End messages, up to 500 in a step: which of them went, and were not moved since they were seen.

    Raises:
        JournalFull: of these, nothing more was done.
        NewerLayout: nothing was done.
        RedisError: nobody knows of the step that failed; the others are done.
    """
    went: list[bool] = []
    for some in batched(ends, AT_ONCE, strict=False):
        arguments: list[Any] = [journal_limit]
        for one, how in some:
            arguments += (one.queue, one.place, one.tag, one.score, how.message_id, how.event, how.join, *how.done)
        try:
            went += [bool(answer) for answer in store.run("end_waiting", arguments)]
        except ResponseError as error:
            if str(error).startswith("JOURNALFULL"):
                raise JournalFull(str(error).partition(" ")[2]) from error
            if newer := refused(error):
                raise newer from error
            raise
    return went


def every(broker: Broker, queue: str, place: WaitingPlace) -> Iterator[list[Waiting]]:
    """All messages of one place, in parts; what moves meanwhile may be missing, or come twice. Raises: RedisError."""
    seen = 0
    while found := look(broker, queue, place, seen):
        yield found
        seen += len(found)


def _number(value: Any) -> int:
    try:
        return max(int(value), 0)
    except ValueError:  # another program wrote it
        return 0
