"""`ConfirmedBatch`: many messages to RabbitMQ with one wait for all their confirmations, by kombu's batch protocol (`Producer.batch`).

Each message by itself waits for a disk of each server of the cluster.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from amqp.exceptions import AMQPError  # type: ignore[import-untyped]  # it has no types
from kombu.transport import pyamqp

from conventions.broker.bulk_publish import RETRY_EVERY, RETRY_FOR, NotTaken
from conventions.broker.rabbitmq_queues import Place
from conventions.core.deadline import Deadline
from conventions.storage.redis_connections import LEAST


class Addressed(NamedTuple):
    """A message, the name that our settings use for its queue, and where it goes."""

    message: Any
    queue: str
    place: Place

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
    """

    def __init__(self, channel: Any, max_size: int, patience: float | None, make_queue: Callable[[str], None]) -> None:
        self.channel = channel
        self._max_size, self._patience, self._make_queue = max_size, patience or RETRY_FOR, make_queue
        self._waiting: list[Addressed] = []

    def publish(self, message: Any, *, exchange: str = "", routing_key: str = "", **_: Any) -> None:
        """Keep one message for the next flush. Raises: NotTaken, as `flush`."""
        place = self.channel.place_of(message, exchange, routing_key)
        self._waiting.append(Addressed(message, routing_key, place))
        if len(self._waiting) >= self._max_size:
            self.flush()

    def flush(self) -> None:
        """Send the waiting messages, and return when the broker has all of them.

        Raises:
            NotTaken: it did not confirm these in time.
        """
        waiting, self._waiting = self._waiting, []
        with Deadline(self._patience) as deadline:
            while waiting:
                answers = _Answers(waiting)
                try:
                    answers.send(self.channel.connection, deadline)
                except (OSError, AMQPError) as error:
                    ids = [one.id for one in answers.left]
                    raise NotTaken(str(error), ids, maybe_sent=answers.have_left) from error
                waiting = answers.left
                if waiting and deadline.left < RETRY_EVERY:
                    text = "it refuses them: their queue is full"
                    raise NotTaken(text, [one.id for one in waiting], maybe_sent=False)
                for queue in {one.queue for one in waiting if one.place in answers.without_queue}:
                    self._make_queue(queue)
                if waiting and not answers.without_queue:
                    time.sleep(RETRY_EVERY)

    def discard(self) -> None:
        """Drop the waiting messages."""
        self._waiting = []

    def close(self) -> None:
        """Nothing is held: each flush has a channel of its own."""


class _Answers:
    """What the broker says of some messages, on a channel that counts from 1.

    Attributes:
        have_left: whether one of them was handed to the network.
        without_queue: where no queue was.
    """

    def __init__(self, messages: list[Addressed]) -> None:
        self.have_left = False
        self.without_queue: set[Place] = set()
        self._messages = messages
        self._pending = dict(enumerate(messages, 1))
        self._refused: list[Addressed] = []

    @property
    def left(self) -> list[Addressed]:
        """Those that it has not confirmed, or refuses."""
        return [*self._pending.values(), *self._refused]

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
                    channel, one.message, one.place.exchange, one.place.routing_key,
                    mandatory=True, timeout=max(deadline.left, LEAST),
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
        self._refused += [one for one in taken if one.place in self.without_queue]

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._refused += self._take(tag, multiple)

    def _on_return(self, _: Exception, exchange: str, routing_key: str, *__: Any) -> None:
        self.without_queue.add(Place(exchange, routing_key))
