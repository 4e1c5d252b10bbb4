"""`BrokerPort`: everything that the platform asks of a broker, beside what kombu does with it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from conventions.broker.find_message import FoundMessage
from conventions.broker.queue_level import QueueLevel
from conventions.broker.redis_broker import CancelAnswer, HeldMessage, Place
from conventions.broker.waiting_messages import End, Waiting
from conventions.core.deadline import Deadline
from conventions.storage.redis_store import Store


class Abilities(NamedTuple):
    """What a broker can do beyond carrying messages. `docs/brokers.md` says what differs.

    Attributes:
        templates: takes a message that was made of another one, in place of one that Celery has made.
        looks: shows which messages wait, and ends some: `purge` leaves a row for each, a run of a schedule has a place.
        limits: keeps messages of a task with a rate limit in their queue.
    """

    templates: bool
    looks: bool
    limits: bool


class BrokerPort(Protocol):
    """A broker. `RedisPort` and `RabbitMQPort` are the two that there are."""

    @property
    def can(self) -> Abilities:
        """What it can do."""

    @property
    def servers(self) -> Mapping[str, Store]:
        """The Redis servers that hold messages, each by the name of its setting."""

    @property
    def keeps_claims(self) -> bool:
        """Whether its server keeps the claims, too. Raises: RedisError.

        Then one script settles a job and removes its message, so that short jobs can share a process, a schedule can ask where its run is,
        and SQL can tell what is gone from the server.
        """

    # Messages that are sent.

    def send(self, send: Callable[..., Any], producer: Any, deadline: Deadline) -> Any:
        """Call `send`, which publishes one message, and return what it returns.

        Args:
            send: takes options of kombu's `publish`.
            producer: the caller's producer, or `None`.
            deadline: it notes there if the message may have left.

        Raises:
            What `send` raises: the broker does not answer, or refuses the message.
        """

    def producer(self, given: Any) -> AbstractContextManager[Any]:
        """A producer for many messages: the caller's, or one of the pool, whose connection is there.

        Raises:
            BrokerUnavailable: there was none before the deadline of this send.
        """

    # A message that a worker holds.

    def in_place(self, held: HeldMessage | None) -> HeldMessage | None:
        """The message, if the script that settles its job can change it; else `None`: it comes again as a copy. Raises: RedisError."""

    def claim_of(self, claim: str) -> str:
        """The claim, if the server of the messages keeps it; else empty. Raises: RedisError."""

    def release(self, claim: str, token: str, why: str) -> None:
        """Release the claim of a job whose process died, unless returning the message does so; `why`: see `Claims`. Raises: RedisError."""

    def note_follow_ups_sent(self, claim: str, message_id: str) -> None:
        """Note that what follows a job was sent, unless acknowledging the message does so. Raises: RedisError."""

    def secure(self) -> None:
        """Wait until the settled job is on the disk, unless its message goes in the same step. Raises: RedisError."""

    # Messages that wait.

    def cancel(self, message_id: str, keep: timedelta) -> CancelAnswer:
        """Cancel a message, for so long. Raises: RedisError."""

    def places(self, message_ids: Sequence[str]) -> Mapping[str, Place | None]:
        """Where these messages are; empty if it cannot be known. Raises: RedisError."""

    def find(self, message_id: str) -> FoundMessage | None:
        """Where a message is that has not ended; `None`: it is not here, or it cannot be known. Raises: RedisError."""

    def end(self, ends: Sequence[tuple[Waiting, End]], record: Callable[[], object], journal_limit: int) -> list[bool]:
        """End waiting messages, each with its event. Returns for each whether it ended.

        Args:
            ends: the messages, and how each ends.
            record: writes the events; it is called first where messages and journal are in two servers.
            journal_limit: the number of events in the journal from which on nothing is ended.

        Raises:
            JournalFull, RedisError: nothing of the present step was done.
        """

    def waiting(self, queue: str, *, delayed: bool = False) -> int:
        """How many messages wait in a queue; with `delayed` also those that are not due, if they can be counted.

        Raises:
            RedisError, or an error of the transport.
        """

    def levels(self, queues: Sequence[str]) -> Mapping[str, QueueLevel]:
        """How many messages these queues have, as far as it can be told.

        Raises:
            RedisError, or an error of the transport.
        """

    def queues(self) -> frozenset[str]:
        """The queues that have or had messages, if they can be listed. Raises: RedisError."""

    # A worker.

    def start(self) -> None:
        """Begin what a worker does for its broker beside its jobs."""

    def stop(self) -> None:
        """End it."""

    def check(self) -> None:
        """Check that it takes messages, as far as can be seen without sending one. Raises: RedisError."""
