"""`RabbitMQPort`: the messages are in RabbitMQ, the claims in Redis."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from amqp.exceptions import NotFound, PreconditionFailed  # type: ignore[import-untyped]  # it has no types
from kombu.exceptions import OperationalError

from conventions.broker.bulk_publish import RETRY_EVERY
from conventions.broker.claims_on_another_server import ClaimsElsewhere, ClaimStore
from conventions.broker.find_message import FoundMessage, find
from conventions.broker.port import Abilities
from conventions.broker.queue_level import QueueLevel
from conventions.broker.rabbitmq_delays_in_redis import Delays
from conventions.broker.redis_broker import Broker, HeldMessage, Place
from conventions.broker.waiting_messages import End, Waiting, end
from conventions.core.deadline import Deadline, current_deadline
from conventions.core.errors import BrokerUnavailable, PayloadError
from conventions.library_internals.kombu import is_refusal
from conventions.storage.redis_connections import LEAST
from conventions.storage.redis_store import Store


class Connections(Protocol):
    """What Celery's application has of connections to the broker."""

    @property
    def broker_errors(self) -> tuple[type[Exception], ...]:
        """What the transport raises when the broker cannot be reached."""

    def producer_or_acquire(self, producer: Any = None, /) -> AbstractContextManager[Any]:
        """Give this producer, or one of the pool."""

    def connection_for_read(self) -> AbstractContextManager[Any]:
        """Open a connection."""


class RabbitMQPort(ClaimsElsewhere):
    """See `BrokerPort`.

    Args:
        app: opens connections.
        claims: the claims, in Redis.
        broker: the messages that are not due, in the same Redis.
        patience: seconds in which RabbitMQ must take what is due.
    """

    keeps_claims = False
    can = Abilities(templates=False, looks=False, limits=False)
    servers: Mapping[str, Store] = {}  # never changed

    def __init__(self, app: Connections, claims: ClaimStore, broker: Broker, patience: float) -> None:
        super().__init__(claims)
        self._app, self._broker = app, broker
        self.delays = Delays(broker, self, patience)

    def send(self, send: Callable[..., Any], producer: Any, deadline: Deadline) -> Any:
        """See `BrokerPort`. It waits for the confirmation, at most until the deadline.

        Raises:
            OperationalError, OSError: it does not answer, or refuses the message now.
            PayloadError: it refuses the message for good.
        """
        with self._app.producer_or_acquire(producer) as given:
            connection = given.connection
            connection.connect_timeout = max(deadline.left, LEAST)
            may_have_left = deadline.may_have_left
            try:
                sent = send(producer=given, timeout=deadline.left, confirm_timeout=deadline.left)
            except BaseException as error:
                if is_refusal(error) or is_refusal(error.__cause__):
                    deadline.may_have_left = may_have_left
                    raise OperationalError("it refuses the message, as where its queue is full") from error
                if isinstance(error, tuple(connection.channel_errors)):
                    deadline.may_have_left = may_have_left
                    connection.collect()
                    given.revive(connection)
                    if isinstance(error, PreconditionFailed):  # no other moment mends it
                        raise PayloadError(f"RabbitMQ refuses the message: {error}") from error
                    raise OperationalError(f"it refuses the message: {error}") from error
                connection.collect()  # an orderly close would wait for ever for a broker that does not answer
                given.revive(connection)
                raise
            return sent

    @contextmanager
    def producer(self, given: Any) -> Iterator[Any]:
        """See `BrokerPort`. A connection that is gone is found before anything is sent on it."""
        with self._app.producer_or_acquire(given) as producer:
            connection, deadline = producer.connection, current_deadline()
            gone: tuple[type[BaseException], ...] = (OSError, OperationalError, *self._app.broker_errors)
            while True:
                left = LEAST if deadline is None else max(deadline.left, LEAST)
                connection.connect_timeout = left
                try:
                    producer.channel.connection.channel().close()
                    break
                except gone as error:
                    connection.collect()
                    producer.revive(connection)
                    if left < RETRY_EVERY:
                        raise BrokerUnavailable(str(error)) from error
                    time.sleep(RETRY_EVERY)
            yield producer

    def in_place(self, held: HeldMessage | None) -> None:
        """See `BrokerPort`."""

    def claim_of(self, claim: str) -> str:  # noqa: ARG002  # that of the other broker needs it
        """See `BrokerPort`."""
        return ""

    def places(self, message_ids: Sequence[str]) -> Mapping[str, Place | None]:  # noqa: ARG002  # the same
        """See `BrokerPort`: nobody can ask RabbitMQ for a message."""
        return {}

    def find(self, message_id: str) -> FoundMessage | None:
        """See `BrokerPort`: one that is not due."""
        found = find(self._broker.store, message_id)
        return found if found is not None and found.place == "delayed" else None

    def end(self, ends: Sequence[tuple[Waiting, End]], record: Callable[[], object], journal_limit: int) -> list[bool]:  # noqa: ARG002  # the same
        """See `BrokerPort`: those that are not due; a queue of RabbitMQ cannot be read without taking its messages."""
        return end(self._broker.store, ends, journal_limit=journal_limit)

    def waiting(self, queue: str, *, delayed: bool = False) -> int:
        """See `BrokerPort`. A queue that does not exist has none."""
        sizes = self._broker.sizes(queue)
        kept = sizes.ready + sizes.delayed if delayed else 0
        with self._app.connection_for_read() as connection:
            return _waiting(connection, queue) + kept

    def levels(self, queues: Sequence[str]) -> Mapping[str, QueueLevel]:
        """See `BrokerPort`. It tells neither what workers have nor how old a message is."""
        kept, found = self._broker.levels(queues), {}
        with self._app.connection_for_read() as connection:
            for name in queues:
                due = kept[name].ready or 0  # forwarded within a moment
                found[name] = QueueLevel(ready=_waiting(connection, name) + due, delayed=kept[name].delayed)
        return found

    def queues(self) -> frozenset[str]:
        """See `BrokerPort`: those of messages that were not due; others cannot be listed without its management plug-in."""
        return frozenset(self._broker.queues())

    def start(self) -> None:
        """See `BrokerPort`: forward what is due."""
        self.delays.start()

    def stop(self) -> None:
        """See `BrokerPort`."""
        self.delays.stop()

    def check(self) -> None:
        """See `BrokerPort`: nothing but a message shows it."""


def _waiting(connection: Any, queue: str) -> int:
    channel = connection.channel()  # one of its own: `NotFound` closes it
    try:
        return int(channel.waiting(queue))
    except NotFound:
        return 0
    finally:
        channel.close()
