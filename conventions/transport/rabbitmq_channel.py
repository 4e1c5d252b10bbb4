"""The channel of our RabbitMQ transport: four quorum queues behind one name, delays, and no message that is dropped unseen.

What a message says of itself decides where it goes: its priority, and when it is due. So all of Celery's ways to send are alike here.
`broker/rabbitmq_queues.py` has the names.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from amqp.exceptions import PreconditionFailed, ResourceLocked  # type: ignore[import-untyped]  # it has no types
from amqp.protocol import queue_declare_ok_t  # type: ignore[import-untyped]  # the same
from kombu.transport import pyamqp

from conventions.broker.rabbitmq_delays import delayed, is_copy
from conventions.broker.rabbitmq_queues import ARGUMENTS, ENDINGS, queue_for, queues_of, seconds_until
from conventions.broker.redis_broker import Publication
from conventions.core.deadline import current_deadline
from conventions.core.errors import ConfigurationError
from conventions.core.priority import Priority
from conventions.execution.purge import purge
from conventions.storage.redis_connections import LEAST
from conventions.transport.rabbitmq_batch import ConfirmedBatch
from conventions.transport.rabbitmq_reading import ReadAhead

REST_AFTER = 1.0  # seconds that a message waits in a busy worker before it goes back, for an idle one
ANSWERS_WITHIN = 5.0  # seconds that a worker waits for an answer of the broker, before it connects anew
QUEUE_NAME_LIMIT = 255 - len(":urgent")  # bytes
NOT_FOR_QUORUM = "x-max-priority"


_IN_USE = (
    "the queue {queue!r} is in use: another worker of this name runs (see --hostname), or RabbitMQ has not seen yet that an earlier connection "
    "is gone"
)

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


class Channel(pyamqp.Channel):
    """A channel of an application of ours; of another program's, it is kombu's.

    Attributes:
        plain: whether names mean what they mean to RabbitMQ.
        rests_at_once: whether nothing may wait here while a job runs, as in a worker that runs jobs in its main thread.
    """

    def __init__(self, connection: Any, *args: Any, **options: Any) -> None:
        self.plain = connection.link is None
        self.rests_at_once = False
        self._ahead = ReadAhead()
        self._readers: dict[str, _Reader] = {}
        self._rests = False
        self._returned: Exception | None = None
        self._prefetch = 0  # what RabbitMQ was told for consumers that begin from now on
        super().__init__(connection, *args, **options)
        if not self.plain:
            self.events["basic_return"].add(self._on_returned)

    def _do_revive(self) -> None:
        self._ahead, limit = ReadAhead(), self._ahead.limit
        self._ahead.limit = limit
        self._readers.clear()
        self._rests = False
        super()._do_revive()

    def wait(self, method: Any, callback: Any = None, timeout: float | None = None, returns_tuple: bool = False) -> Any:
        """Wait for an answer; no longer than the deadline of a send, and never for ever."""
        deadline = current_deadline()
        if timeout is None and not self.plain:
            timeout = ANSWERS_WITHIN if deadline is None else max(deadline.left, LEAST)
        return super().wait(method, callback, timeout, returns_tuple)

    # Queues.

    def queue_declare(  # noqa: PLR0917  # py-amqp's signature
        self, queue: str = "", passive: bool = False, durable: bool = False, exclusive: bool = False,
        auto_delete: bool = True, nowait: bool = False, arguments: Any = None, **more: Any,
    ) -> Any:  # fmt: skip
        """Declare a queue. One that outlives its connection is one of ours, and four at RabbitMQ."""
        if self.plain or not queue or not durable or exclusive or auto_delete:
            try:
                return super().queue_declare(queue, passive, durable, exclusive, auto_delete, nowait, arguments, **more)
            except ResourceLocked as error:  # Celery would end its worker; of a lost connection it tries again
                raise ConnectionError(_IN_USE.format(queue=queue)) from error
        if passive:
            return self._total([super(Channel, self).queue_declare(name, passive=True) for name in queues_of(queue)])
        _check_name(queue)
        given = {name: value for name, value in (arguments or {}).items() if name != NOT_FOR_QUORUM}
        found = []
        for name in queues_of(queue):
            try:
                found.append(
                    super().queue_declare(name, durable=True, auto_delete=False, arguments={**given, **ARGUMENTS})
                )
            except PreconditionFailed as error:
                raise ConfigurationError([_other_queue(name, error)]) from error
        self.connection.task_queues.add(queue)
        return self._total(found)

    @staticmethod
    def _total(found: list[Any]) -> Any:
        counts, consumers = sum(one.message_count for one in found), max(one.consumer_count for one in found)
        return queue_declare_ok_t(found[list(ENDINGS.values()).index("")].queue, counts, consumers)

    def _is_ours(self, queue: str) -> bool:
        if self.plain:
            return False
        return queue in self.connection.task_queues or queue in self.connection.link.app.amqp.queues

    def _all_of(self, queue: str) -> list[str]:
        return queues_of(queue) if self._is_ours(queue) else [queue]

    def queue_purge(self, queue: str = "", nowait: bool = False, **more: Any) -> Any:
        """Remove what waits. Returns how many. Of what is not due each leaves a row."""
        removed = [super(Channel, self).queue_purge(name, nowait, **more) for name in self._all_of(queue)]
        kept = sum(purge(self.connection.link.app, [queue]).values()) if self._is_ours(queue) else 0
        return None if nowait else sum(removed) + kept

    def queue_delete(self, queue: str = "", *args: Any, **options: Any) -> Any:
        """Delete a queue."""
        removed = [super(Channel, self).queue_delete(name, *args, **options) for name in self._all_of(queue)]
        return None if None in removed else sum(removed)

    # Messages that are sent.

    def basic_publish(self, msg: Any, exchange: str = "", routing_key: str = "", **options: Any) -> Any:
        """Publish a message; of a task's, wait until the broker has it. Events wait for nothing, and must not: the worker's loop sends them.

        Raises:
            ChannelError: the broker has no such queue, and none can be made.
            MessageNacked: its queue is full.
        """
        if not self.is_of_task(msg, exchange):
            # Where tasks are sent, too, the broker confirms each message, and the next one must not take this one's answer for its own.
            publish = super().basic_publish_confirm if self._confirm_selected else super().basic_publish
            return publish(msg, exchange, routing_key, **options)
        if (later := self.later(msg, routing_key)) is not None:
            self.keep([later], on_disk=is_copy(msg))
            return None
        name = self.queue_of(msg, routing_key)
        sent = self._publish(msg, name, options)
        if self._returned is not None:  # without a queue RabbitMQ drops it, and says that it has it
            self.make_queue(routing_key)
            sent = self._publish(msg, name, options)
        if self._returned is not None:
            raise self._returned
        return sent

    def is_of_task(self, msg: Any, exchange: str) -> bool:
        """Whether a message is for one of our queues, and so goes where it says itself."""
        return not self.plain and not exchange and "task" in (msg.properties.get("application_headers") or {})

    def later(self, msg: Any, queue: str) -> Publication | None:
        """What is kept of a message that is not due."""
        wait = seconds_until(msg.properties["application_headers"].get("eta"))
        return delayed(msg, queue, wait) if wait else None

    def keep(self, publications: Sequence[Publication], *, on_disk: bool) -> None:
        """Keep messages that are not due. Raises: RedisError, BrokerUnavailable."""
        port, settings = self.connection.link.app.port, self.connection.link.app.settings
        port.delays.keep(publications, on_disk=on_disk or settings.wait_for_disk)

    def queue_of(self, msg: Any, queue: str) -> str:
        """The queue of RabbitMQ for a message, which is there then."""
        if queue not in self.connection.task_queues:  # one of another program, which drops messages, is refused
            self.make_queue(queue)
        return queue_for(queue, msg.properties.get("priority"))

    def create_publish_batch(self, max_size: int) -> ConfirmedBatch:
        """Begin a batch of kombu's."""
        patience = None if self.connection.link is None else self.connection.link.app.settings.broker_timeout
        return ConfirmedBatch(self, max_size, patience, self.make_queue)

    def make_queue(self, queue: str) -> None:
        """Declare a queue of ours, with the arguments that the application's configuration names."""
        named = self.connection.link.app.amqp.queues.get(queue)
        self.queue_declare(queue, durable=True, auto_delete=False, arguments=named and named.queue_arguments)

    def _publish(self, msg: Any, name: str, options: dict[str, Any]) -> Any:
        self._returned = None
        if (deadline := current_deadline()) is not None:
            deadline.may_have_left = True
        return super().basic_publish_confirm(msg, "", name, **{**options, "mandatory": True})

    def _on_returned(self, error: Exception, *_: Any) -> None:
        self._returned = error

    # Messages that are read.

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

    def waiting(self, queue: str) -> int:
        """How many messages of a queue are ready. Raises: NotFound, which closes this channel."""
        return sum(super(Channel, self).queue_declare(name, passive=True).message_count for name in queues_of(queue))


def _check_name(queue: str) -> None:
    if len(queue.encode()) > QUEUE_NAME_LIMIT:
        raise ConfigurationError(
            [
                f"the name of the queue {queue[:40]!r}… has {len(queue.encode())} bytes; RabbitMQ takes {QUEUE_NAME_LIMIT} at most"
            ]
        )
    if ending := next((one for one in ENDINGS.values() if one and queue.endswith(one)), None):
        raise ConfigurationError(
            [
                f"the queue {queue!r} cannot end with {ending!r}, which names a priority in RabbitMQ; give it another name"
            ]
        )


def _other_queue(name: str, error: Exception) -> str:
    return (
        f"RabbitMQ has a queue {name!r} that is not one of ours ({error}): let the workers that made it empty it, then delete it, "
        f"for example with `rabbitmqctl delete_queue {name}`; or use another virtual host"
    )
