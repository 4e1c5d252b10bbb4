"""Look through waiting messages and end some, from outside a worker: `execution/purge_queues.py`, `recording/restored_redis.py`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from redis.exceptions import ResponseError

from conventions.broker.codec import UnreadableBody, body_in, headers_in, moved_to
from conventions.broker.find_message import find
from conventions.broker.redis_broker import Broker
from conventions.core.chunking import batched
from conventions.core.error_text import clean
from conventions.core.errors import JournalFull
from conventions.core.time_units import count_in
from conventions.storage.layout_version import refused
from conventions.storage.redis_store import Store

WaitingPlace: TypeAlias = Literal["queue", "delayed", "inflight"]

AT_ONCE = 500  # messages that one step ends; the server serves nobody else meanwhile
MOST_BYTES = 4 * 1024 * 1024  # of payloads in one read, unless one message is larger
NOT_DONE = ("", "", 0)


class Waiting(NamedTuple):
    """A message, and where it was seen.

    Attributes:
        place: the part of its queue.
        score: its score there, as the server writes it. A changed score means that the message has moved.
        generation: how often it was redriven.
        attempt: the number of its next attempt; 0 if it was never tried.
        at_worker: of one in flight: it runs, it has ended, or its worker has not begun it, which is empty.
    """

    queue: str
    place: WaitingPlace
    tag: bytes
    score: bytes
    payload: bytes
    generation: int
    attempt: int
    at_worker: Literal["running", "ended", ""] = ""

    @property
    def headers(self) -> dict[str, Any]:
        """The headers of the message; empty if the entry is not a message."""
        return headers_in(self.payload)

    @property
    def arguments(self) -> dict[str, Any] | None:
        """Its arguments by name, as plain JSON; `None` where they cannot be read so."""
        try:
            body = body_in(self.payload)
        except UnreadableBody:
            return None
        return body.kwargs

    @property
    def is_message(self) -> bool:
        """Whether it is a message of a task; what else another program wrote is a dead letter once a worker reads it."""
        headers = self.headers
        return isinstance(headers.get("id"), str) and isinstance(headers.get("task"), str)

    @property
    def is_followed(self) -> bool:
        """Whether something waits for its end: a chain, a chord, callbacks, or who asks for its result."""
        try:
            options = body_in(self.payload).options
        except UnreadableBody:
            return True
        return any(options.values()) or self.headers.get("ignore_result") is not True

    @property
    def message_id(self) -> str:
        """The id of the message; the tag, if the message has no id."""
        id_ = self.headers.get("id")
        return clean(id_ if isinstance(id_, str) and id_ else self.tag.decode(errors="backslashreplace"))


@dataclass(frozen=True, slots=True)
class End:
    """How a message ends.

    Attributes:
        message_id: its id.
        event: for the journal, or empty.
        join: how its batch counts it, or empty.
        done: claim, fingerprint, and ms to keep the claim, if its job is known to be done.
    """

    message_id: str
    event: bytes = b""
    join: str = ""
    done: tuple[str, str, int] = NOT_DONE


def look(broker: Broker, queue: str, place: WaitingPlace, leave_out: int = 0, count: int = AT_ONCE) -> list[Waiting]:
    """The first messages of one place, after skipping `leave_out`. Raises: RedisError."""
    found = broker.store.run("waiting_messages", [queue, place, leave_out, count, MOST_BYTES])
    return [
        Waiting(queue, place, tag, score, payload, count_in(generation), count_in(attempt), spot.decode())
        for tag, score, payload, generation, attempt, spot in found
    ]


def end(store: Store, ends: Sequence[tuple[Waiting, End]], *, journal_limit: int = 0) -> list[bool]:
    """End messages, up to 500 in a step. Returns for each whether it ended: it had not moved since it was seen.

    Raises:
        JournalFull: the present step did nothing.
        NewerLayout: nothing was done.
        RedisError: the failed step may or may not have run; the steps before it have.
    """
    went: list[bool] = []
    for some in batched(ends, AT_ONCE):
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


def move(store: Store, moves: Sequence[tuple[Waiting, str]]) -> list[bool]:
    """Move messages to other queues, up to 500 in a step. Returns for each whether it moved: it was where it was seen.

    Raises:
        NewerLayout: nothing was done.
        RedisError: the failed step may or may not have run; the steps before it have.
    """
    went: list[bool] = []
    for some in batched(moves, AT_ONCE):
        arguments: list[Any] = []
        for one, queue in some:
            arguments += (one.queue, one.place, one.tag, one.score, queue, moved_to(one.payload, queue))
        try:
            went += [bool(answer) for answer in store.run("move_waiting", arguments)]
        except ResponseError as error:
            if newer := refused(error):
                raise newer from error
            raise
    return went


def waiting_one(broker: Broker, message_id: str) -> Waiting | None:
    """A message that waits, by its id; `None`: it does not wait under this id. Raises: RedisError."""
    found = find(broker.store, message_id)
    if found is None or found.place not in ("ready", "delayed"):
        return None
    place: WaitingPlace = "queue" if found.place == "ready" else "delayed"
    redis: Any = broker.store.redis
    score = redis.zscore(broker.store.key(place, found.queue), message_id)
    if score is None:  # it has moved, or its tag is another one
        return None
    text = b"%.17g" % score
    return Waiting(found.queue, place, message_id.encode(), text, found.payload, found.generation, found.attempt)


def every(broker: Broker, queue: str, place: WaitingPlace) -> Iterator[list[Waiting]]:
    """All messages of one place, in parts. A message that moves meanwhile may be missing or come twice. Raises: RedisError."""
    seen = 0
    while found := look(broker, queue, place, seen):
        yield found
        seen += len(found)
