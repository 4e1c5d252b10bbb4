"""`ConfirmedBatch`: many messages to RabbitMQ with one wait for all their confirmations, by kombu's batch protocol (`Producer.batch`).

Each message by itself waits for a disk of each server of the cluster.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from amqp.exceptions import AMQPError  # type: ignore[import-untyped]  # it has no types
from kombu.transport import pyamqp
from redis.exceptions import RedisError

from conventions.broker.bulk_publish import RETRY_EVERY, RETRY_FOR, NotTaken
from conventions.broker.redis_broker import Publication
from conventions.core.deadline import Deadline
from conventions.core.errors import BrokerUnavailable
from conventions.storage.redis_connections import LEAST
from conventions.transport.rabbitmq_message import make_fit


class Addressed(NamedTuple):
    """A message, and where it goes.

    Attributes:
        queue: the name that our settings use; empty for what goes to an exchange.
        must_arrive: whether it is of a task, and so may not be dropped for want of a queue.
    """

    message: Any
    queue: str
    exchange: str
    routing_key: str
    must_arrive: bool

    @property
    def id(self) -> str:
        """The id of the message."""
        return str(self.message.properties.get("correlation_id", ""))


class ConfirmedBatch:
    """The messages of one channel that wait for their flush.

    Args:
        channel: the channel that they are published on; kombu compares it.
        max_size: messages in one flush.
        patience: how many seconds to retry a broker that does not answer.
        make_queue: makes a queue that is missing.

    Attributes:
        once: whether a refusal is final, and is not tried again until the time is over.
    """

    once = False

    def __init__(self, channel: Any, max_size: int, patience: float | None, make_queue: Callable[[str], None]) -> None:
        self.channel = channel
        self._max_size, self._patience, self._make_queue = max_size, patience or RETRY_FOR, make_queue
        self._waiting: list[Addressed] = []
        self._later: list[Publication] = []

    def publish(self, message: Any, *, exchange: str = "", routing_key: str = "", **_: Any) -> None:
        """Keep one message for the next flush. Raises: NotTaken, as `flush`; PayloadError."""
        is_of_task, same = self.channel.is_of_task(message), ""
        if is_of_task:
            same = self.channel.finish(message)
            make_fit(message, self.channel.message_limit)
        if exchange or not is_of_task:
            self._waiting.append(Addressed(message, "", exchange, routing_key, is_of_task))
        elif (later := self.channel.later(message, routing_key, same)) is not None:
            self._later.append(later)
        else:
            self._waiting.append(Addressed(message, routing_key, "", routing_key, is_of_task))
        if len(self._waiting) + len(self._later) >= self._max_size:
            self.flush()

    def flush(self) -> None:
        """Send the waiting messages, and return when the broker has all of them.

        Raises:
            NotTaken: it did not confirm these in time.
        """
        waiting, self._waiting = self._waiting, []
        later, self._later = self._later, []
        with Deadline(self._patience) as deadline:
            if later:
                self._keep(later, [one.id for one in waiting], deadline)
            waiting = self._placed(waiting)
            while waiting:
                answers = _Answers(waiting)
                try:
                    answers.send(self.channel.connection, deadline)
                except (OSError, AMQPError) as error:
                    ids = [one.id for one in answers.left]
                    raise NotTaken(str(error), ids, maybe_sent=answers.have_left) from error
                waiting = answers.left
                missing = {one.queue for one in waiting if answers.is_missing(one)}
                is_final = "" in missing or (self.once and len(waiting) > answers.returned)
                if waiting and (is_final or deadline.left < RETRY_EVERY):
                    text = "there is no queue for them" if missing else "it refuses them, as where their queue is full"
                    raise NotTaken(text, [one.id for one in waiting], maybe_sent=False)
                for queue in missing:
                    self._make_queue(queue)
                if waiting and not missing:
                    time.sleep(RETRY_EVERY)

    def _placed(self, waiting: list[Addressed]) -> list[Addressed]:
        """The messages with the queues of RabbitMQ, which are there then. Raises: NotTaken."""
        try:
            return [
                one._replace(routing_key=self.channel.queue_of(one.message, one.queue)) if one.queue else one
                for one in waiting
            ]
        except (OSError, AMQPError) as error:  # no permission, for example; nothing of this flush was sent
            raise NotTaken(str(error), [one.id for one in waiting], maybe_sent=False) from error

    def _keep(self, later: list[Publication], waiting: list[str], deadline: Deadline) -> None:
        try:
            self.channel.keep(later, on_disk=False)
        except (RedisError, BrokerUnavailable) as error:
            ids = [*(one.tag for one in later), *waiting]
            raise NotTaken(str(error), ids, maybe_sent=deadline.may_have_left) from error

    def discard(self) -> None:
        """Drop the waiting messages."""
        self._waiting, self._later = [], []

    def close(self) -> None:
        """Nothing is held: each flush has a channel of its own."""


class _Answers:
    """What the broker says of some messages, on a channel that counts from 1.

    Attributes:
        have_left: whether one of them was handed to the network.
    """

    def __init__(self, messages: list[Addressed]) -> None:
        self.have_left = False
        self._without_queue: set[tuple[str, str]] = set()
        self._messages = messages
        self._pending = dict(enumerate(messages, 1))
        self._refused: list[Addressed] = []

    @property
    def left(self) -> list[Addressed]:
        """Those that it has not confirmed, or refuses."""
        return [*self._pending.values(), *self._refused]

    @property
    def returned(self) -> int:
        """How many of these found no queue."""
        return sum(map(self.is_missing, self._refused))

    def is_missing(self, one: Addressed) -> bool:
        """Whether no queue was there for it."""
        return one.must_arrive and (one.exchange, one.routing_key) in self._without_queue

    def send(self, connection: Any, deadline: Deadline) -> None:
        """Send all, and wait for all answers. Raises: OSError, AMQPError."""
        channel = connection.channel()
        try:
            channel.plain = True
            channel.events["basic_ack"].add(self._on_ack)
            channel.events["basic_nack"].add(self._on_nack)
            channel.events["basic_return"].add(self._on_return)
            channel.confirm_select()
            for one in self._messages:
                self.have_left = True
                pyamqp.Channel.basic_publish(
                    channel, one.message, one.exchange, one.routing_key,
                    mandatory=one.must_arrive, timeout=max(deadline.left, LEAST),
                )  # fmt: skip
            while self._pending:
                connection.drain_events(timeout=max(deadline.left, LEAST))
        except BaseException:
            connection.collect()  # what is under way on it is not known any more
            raise
        channel.close()

    def _take(self, tag: int, multiple: bool) -> list[Addressed]:
        tags = [one for one in self._pending if one <= tag] if multiple else [tag]
        return [self._pending.pop(one) for one in tags if one in self._pending]

    def _on_ack(self, tag: int, multiple: bool) -> None:
        taken = self._take(tag, multiple)
        self._refused += [one for one in taken if self.is_missing(one)]

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._refused += self._take(tag, multiple)

    def _on_return(self, _: Exception, exchange: str, routing_key: str, *__: Any) -> None:
        self._without_queue.add((exchange, routing_key))
