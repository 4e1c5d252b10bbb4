"""The channel of our RabbitMQ transport: how a worker reads four queues as one, the most urgent message first.

`docs/design/transport.md` has a table of what happens when. Below it are the queues (`rabbitmq_declare_queues.py`) and sending (`rabbitmq_sending.py`).
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from amqp.exceptions import NotFound  # type: ignore[import-untyped]  # it has no types
from kombu.transport import pyamqp

from conventions.broker.codec import check_raw
from conventions.broker.rabbitmq_delays_in_redis import seconds_until
from conventions.broker.rabbitmq_priorities import ENDINGS
from conventions.core.errors import UndeliverableMessage, UnknownForm
from conventions.transport.rabbitmq_reading import ReadAhead
from conventions.transport.rabbitmq_sending import SendingChannel

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


class Message(pyamqp.Message):
    """A message as the worker gets it. Of one with a fault kombu unpacks nothing, and the worker is told of the fault."""

    def __init__(self, msg: Any, channel: Any = None, **options: Any) -> None:
        fault: Exception | None = getattr(msg, "fault", None)
        if fault is not None:
            self.errors: list[Any] = [(type(fault), fault, None)]  # as kombu notes a body that it cannot unpack
        super().__init__(msg, channel=channel, **options)  # type: ignore[no-untyped-call]  # kombu has few types


class Channel(SendingChannel):
    """A channel that sends and reads.

    Attributes:
        ahead: what it has read, and whether it reads on.
    """

    Message = Message

    def __init__(self, connection: Any, *args: Any, **options: Any) -> None:
        self._readers: dict[str, _Reader] = {}
        self.ahead = ReadAhead(_Consumers(self))
        self._prefetch = 0  # what RabbitMQ was told for consumers that begin from now on
        super().__init__(connection, *args, **options)
        self.auto_decode = self.plain  # the letter of a message has its body as it came

    def _do_revive(self) -> None:
        self._readers.clear()
        self.ahead.anew()
        super()._do_revive()

    @property
    def is_usable(self) -> bool:
        """Whether RabbitMQ knows it. Else RabbitMQ has taken back all that it had."""
        return self.connection is not None and bool(self.is_open)

    def basic_qos(self, prefetch_size: int, prefetch_count: int, a_global: bool, **more: Any) -> Any:
        """Set how many messages the worker takes at a time. Quorum queues count for each consumer, and this channel for all of them.

        Each consumer gets twice as many, so that the next urgent message is here when an urgent one ends.
        """
        if self.plain:
            return super().basic_qos(prefetch_size, prefetch_count, a_global, **more)
        self.ahead.limit, answer = prefetch_count, None
        if not 0 < prefetch_count * 2 <= self._prefetch:
            self._prefetch = prefetch_count * 2
            answer = super().basic_qos(prefetch_size, self._prefetch, False, **more)
            if self._readers:  # those that have begun keep what they were told
                self.ahead.rest()
        self.connection.soon(self.go_on)  # there may be room now
        return answer

    def basic_consume(  # noqa: PLR0917  # py-amqp's signature
        self, queue: str = "", consumer_tag: str = "", no_local: bool = False, no_ack: bool = False,
        exclusive: bool = False, nowait: bool = False, callback: Any = None, arguments: Any = None,
        on_cancel: Any = None, **more: Any,
    ) -> Any:  # fmt: skip
        """Read a queue: all four of it, the most urgent first."""
        if queue not in self.connection.task_queues or no_ack or not consumer_tag:
            return super().basic_consume(queue, consumer_tag, no_local, no_ack, exclusive, nowait, callback, arguments, on_cancel, **more)  # fmt: skip
        self._readers[consumer_tag] = _Reader(queue, consumer_tag, callback, on_cancel)
        self.connection.reading.add(self)
        self.ahead.add_reader(consumer_tag)
        return consumer_tag

    def begin(self, tag: str) -> None:
        """Begin the consumers of a reader. Raises: ConnectionError."""
        reader = self._readers[tag]
        for urgency, ending in enumerate(ENDINGS.values()):
            name, callback = reader.queue + ending, partial(self._on_arrived, reader, urgency)
            try:
                super().basic_consume(name, tag + ending, callback=callback, on_cancel=reader.on_cancel)
            except TimeoutError as error:
                raise ConnectionError(_NO_ANSWER.format(name=name)) from error
            except NotFound as error:  # somebody has deleted it: who connects anew makes it again
                raise ConnectionError(f"the queue {name!r} is gone") from error

    def basic_cancel(self, consumer_tag: str, nowait: bool = False, **more: Any) -> Any:
        """Read a queue no more. What waits here goes back."""
        if consumer_tag not in self._readers:
            return super().basic_cancel(consumer_tag, nowait, **more)
        others = self.ahead.remove_reader(consumer_tag)
        del self._readers[consumer_tag]
        if not others and self.connection is not None:
            self.connection.reading.discard(self)
        return None

    def cancel(self, tag: str) -> None:
        """End the consumers of a reader."""
        for ending in ENDINGS.values():
            super().basic_cancel(tag + ending)

    def give_back(self, tag: int) -> None:
        """Return a message that the worker has not seen."""
        super().basic_reject(tag, requeue=True)

    def _on_arrived(self, reader: _Reader, urgency: int, message: Any) -> None:
        headers = message.properties.get("application_headers") or {}
        if headers.get("eta") is None or not seconds_until(headers["eta"]):
            headers["eta"] = None  # Celery would give it to a timer; without this one that the body names, too
        message.fault = self._fault_of(message, headers)
        # By these a retry is sent again, as a message of the queue that our settings name.
        message.delivery_info |= {"exchange": "", "routing_key": reader.queue}
        hand_over = partial(reader.callback, message)
        self.ahead.arrived(urgency, message.delivery_tag, reader.tag, hand_over, time.monotonic())
        self.connection.on_arrived()

    def _fault_of(self, message: Any, headers: dict[str, Any]) -> Exception | None:
        """Why nothing of a message is to be read: kilobytes may become gigabytes."""
        try:
            check_raw(headers, message.properties.get("content_encoding"), message.body_size, self.message_limit)
        except (UndeliverableMessage, UnknownForm) as error:
            return error
        return None

    def go_on(self) -> None:
        """A message has ended: give the worker the next one, or read again."""
        if self.is_usable:
            self.ahead.go_on()

    def _has_ended(self, tag: int, *, and_before: bool = False) -> None:
        self.ahead.ended(tag, and_before=and_before)
        if self.ahead.waits_for_room and self.connection is not None:
            self.connection.soon(self.go_on)

    def basic_ack(self, delivery_tag: int, multiple: bool = False, **more: Any) -> Any:
        """Acknowledge a message."""
        super().basic_ack(delivery_tag, multiple, **more)
        self._has_ended(delivery_tag, and_before=multiple)

    def basic_reject(self, delivery_tag: int, requeue: bool, **more: Any) -> Any:
        """Return a message, or drop it."""
        super().basic_reject(delivery_tag, requeue, **more)
        self._has_ended(delivery_tag)


class _Consumers:
    """A channel's consumers; without an open channel nothing is done, since RabbitMQ has taken all messages back."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def begin(self, reader: str, /) -> None:
        if self._channel.is_usable:
            self._channel.begin(reader)

    def cancel(self, reader: str, /) -> None:
        if self._channel.is_usable:
            self._channel.cancel(reader)

    def give_back(self, tag: int, /) -> None:
        if self._channel.is_usable:
            self._channel.give_back(tag)
