"""The channel of our RabbitMQ transport: how a worker reads four queues as one, the most urgent message first.

`docs/design/transport.md` has a table of what happens when. Below it are the queues (`rabbitmq_queue_channel.py`) and sending (`rabbitmq_sending.py`).
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from conventions.broker.rabbitmq_queues import ENDINGS, seconds_until
from conventions.core.priority import Priority
from conventions.transport.rabbitmq_reading import ReadAhead
from conventions.transport.rabbitmq_sending import SendingChannel

REST_AFTER = 1.0  # seconds that a message waits in a busy worker before it goes back, for an idle one

_NO_ANSWER = (
    "RabbitMQ does not answer for the queue {name!r}. If it was killed within seconds of making this queue, it has lost it: see that the queue "
    "has no messages, and run `rabbitmqctl delete_queue {name}`"
)


class _Reader(NamedTuple):
    """One consumer of Celery's, which reads four queues."""

    queue: str
    tag: str
    callback: Callable[[Any], Any]
    on_cancel: Callable[[str], Any] | None


class Channel(SendingChannel):
    """A channel that sends and reads.

    Attributes:
        rests_at_once: whether nothing may wait here while a job runs, as in a worker that runs jobs in its main thread.
    """

    def __init__(self, connection: Any, *args: Any, **options: Any) -> None:
        self.rests_at_once = False
        self._ahead = ReadAhead()
        self._readers: dict[str, _Reader] = {}
        self._rests = False  # it reads nothing until a job has ended
        self._prefetch = 0  # what RabbitMQ was told for consumers that begin from now on
        super().__init__(connection, *args, **options)

    def _do_revive(self) -> None:
        self._ahead, limit = ReadAhead(), self._ahead.limit
        self._ahead.limit = limit
        self._readers.clear()
        self._rests = False
        super()._do_revive()

    def basic_qos(self, prefetch_size: int, prefetch_count: int, a_global: bool, **more: Any) -> Any:
        """Set how many messages the worker takes at a time. Quorum queues count for each consumer, and this channel for all of them.

        Each consumer gets twice as many, so that the next urgent message is here when an urgent one ends.
        """
        if self.plain:
            return super().basic_qos(prefetch_size, prefetch_count, a_global, **more)
        self._ahead.limit, before = prefetch_count, self._prefetch
        if 0 < prefetch_count * 2 <= before:
            return None
        self._prefetch = prefetch_count * 2
        answer = super().basic_qos(prefetch_size, self._prefetch, False, **more)
        if self._readers and not self._rests:  # those that have begun keep what they were told
            self._rest()
            self.connection.soon(self.go_on)
        return answer

    def basic_consume(  # noqa: PLR0917  # py-amqp's signature
        self, queue: str = "", consumer_tag: str = "", no_local: bool = False, no_ack: bool = False,
        exclusive: bool = False, nowait: bool = False, callback: Any = None, arguments: Any = None,
        on_cancel: Any = None, **more: Any,
    ) -> Any:  # fmt: skip
        """Read a queue: all four of it, the most urgent first."""
        if queue not in self.connection.task_queues or no_ack or not consumer_tag:
            return super().basic_consume(queue, consumer_tag, no_local, no_ack, exclusive, nowait, callback, arguments, on_cancel, **more)  # fmt: skip
        reader = self._readers[consumer_tag] = _Reader(queue, consumer_tag, callback, on_cancel)
        self.connection.reading.add(self)
        if not self._rests:
            self._begin(reader)
        return consumer_tag

    def _begin(self, reader: _Reader) -> None:
        for urgency, ending in enumerate(ENDINGS.values()):
            name, callback = reader.queue + ending, partial(self._on_arrived, reader, urgency)
            try:
                super().basic_consume(name, reader.tag + ending, callback=callback, on_cancel=reader.on_cancel)
            except TimeoutError as error:
                raise ConnectionError(_NO_ANSWER.format(name=name)) from error

    def basic_cancel(self, consumer_tag: str, nowait: bool = False, **more: Any) -> Any:
        """Read a queue no more. What waits here goes back."""
        reader = self._readers.pop(consumer_tag, None)
        if reader is None:
            return super().basic_cancel(consumer_tag, nowait, **more)
        if not self._readers and self.connection is not None:
            self.connection.reading.discard(self)
        self._end(reader)
        return None

    def _end(self, reader: _Reader) -> None:
        gone = self._ahead.empty(reader.tag)
        if self.connection is None or not self.is_open:  # RabbitMQ has taken all of them back
            return
        if not self._rests or reader.tag + ENDINGS[Priority.NORMAL] in self.callbacks:
            for ending in ENDINGS.values():
                super().basic_cancel(reader.tag + ending)
            gone += self._ahead.empty(reader.tag)  # what came meanwhile
        for tag in gone:
            super().basic_reject(tag, requeue=True)

    def _on_arrived(self, reader: _Reader, urgency: int, message: Any) -> None:
        headers = message.properties.get("application_headers") or {}
        if not seconds_until(headers.get("eta")):
            headers["eta"] = None  # Celery would give it to a timer
        # By these a retry is sent again, as a message of the queue that our settings name.
        message.delivery_info |= {"exchange": "", "routing_key": reader.queue}
        self._ahead.add(urgency, message.delivery_tag, reader.tag, partial(reader.callback, message))
        self.connection.on_arrived()

    @property
    def has_ahead(self) -> bool:
        """Whether messages wait here."""
        return bool(self._ahead)

    @property
    def waits_for_room(self) -> bool:
        """Whether it has something to do as soon as a message has ended."""
        return bool(self._ahead) or self._rests

    def hand_over(self) -> bool:
        """Give the worker what it has room for. Returns whether that was anything."""
        handed = False
        while (arrived := self._ahead.take()) is not None:
            if self.rests_at_once and self._ahead.room < 1:
                self._rest()
            arrived.hand_over()
            handed = True
        return handed

    def rest_if_full(self) -> None:
        """Read nothing, and give back what waits here, if the worker has had no room for it for a while."""
        since = self._ahead.waits_since()
        if since is not None and time.monotonic() - since >= REST_AFTER:
            self._rest()

    def _rest(self) -> None:
        if not self._rests:
            self._rests = True
            for reader in list(self._readers.values()):
                self._end(reader)

    def go_on(self) -> None:
        """A message has ended: give the worker the next one, or read again."""
        if self.connection is None or not self.is_open:
            return
        if self._rests and self._ahead.room > 0:
            self._rests = False
            for reader in list(self._readers.values()):
                self._begin(reader)
        self.hand_over()

    def _has_ended(self, tag: int, *, and_before: bool = False) -> None:
        self._ahead.ended(tag, and_before=and_before)
        if self.waits_for_room and self.connection is not None:
            self.connection.soon(self.go_on)

    def basic_ack(self, delivery_tag: int, multiple: bool = False, **more: Any) -> Any:
        """Acknowledge a message."""
        super().basic_ack(delivery_tag, multiple, **more)
        self._has_ended(delivery_tag, and_before=multiple)

    def basic_reject(self, delivery_tag: int, requeue: bool, **more: Any) -> Any:
        """Return a message, or drop it."""
        super().basic_reject(delivery_tag, requeue, **more)
        self._has_ended(delivery_tag)
