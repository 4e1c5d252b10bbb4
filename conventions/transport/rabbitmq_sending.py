"""`SendingChannel`: a channel on which what a message says of itself decides where it goes: its priority, and when it is due.

So all of Celery's ways to send are alike here, and no message is dropped unseen.
"""

from collections.abc import Sequence
from typing import Any

from conventions.broker.caller_headers import check_sender
from conventions.broker.header_names import SIGNATURE
from conventions.broker.rabbitmq_delays_in_redis import delayed, is_copy, seconds_until
from conventions.broker.rabbitmq_priorities import queue_for
from conventions.broker.redis_broker import Publication
from conventions.core.deadline import current_deadline
from conventions.sealing.seal_outgoing import Parts
from conventions.transport.rabbitmq_batch import ConfirmedBatch
from conventions.transport.rabbitmq_declare_queues import QueueChannel
from conventions.transport.rabbitmq_message import make_fit


class SendingChannel(QueueChannel):
    """The queues of a channel, and how messages get into them."""

    def __init__(self, connection: Any, *args: Any, **options: Any) -> None:
        self._returned: Exception | None = None
        super().__init__(connection, *args, **options)
        if not self.plain:
            self.events["basic_return"].add(self._on_returned)

    def basic_publish(self, msg: Any, exchange: str = "", routing_key: str = "", **options: Any) -> Any:
        """Publish a message; of a task's, wait until the broker has it. Events wait for nothing, and must not: the worker's loop sends them.

        Raises:
            ChannelError: the broker has no such queue, and none can be made; or no such exchange.
            MessageNacked: RabbitMQ refuses it, as where its queue is full.
            PayloadError: AMQP cannot carry it.
        """
        if not self.is_of_task(msg):
            # Where tasks are sent, too, the broker confirms each message, and the next one must not take this one's answer for its own.
            publish = super().basic_publish_confirm if self._confirm_selected else super().basic_publish
            return publish(msg, exchange, routing_key, **options)
        same = self.finish(msg)
        make_fit(msg, self.message_limit)
        if exchange:
            sent = self._publish(msg, exchange, routing_key, options)
            if self._returned is not None:  # no queue is bound to it by this key
                raise self._returned
            return sent
        if (later := self.later(msg, routing_key, same)) is not None:
            self.keep([later], on_disk=is_copy(msg))
            return None
        name = self.queue_of(msg, routing_key)
        sent = self._publish(msg, "", name, options)
        if self._returned is not None:  # without a queue RabbitMQ drops it, and says that it has it
            self.make_queue(routing_key)
            sent = self._publish(msg, "", name, options)
        if self._returned is not None:
            raise self._returned
        return sent

    @property
    def message_limit(self) -> int:
        """How many bytes the body of a message of a task may have."""
        return int(self.connection.link.app.settings.message_limit)

    def is_of_task(self, msg: Any) -> bool:
        """Whether a message is of a task, and an application of ours sends it. Raises: TypeError, as `check_sender`."""
        headers = msg.properties.get("application_headers") or {}
        if self.plain or "task" not in headers:
            return False
        check_sender(headers, self.connection.link.app.main)
        return True

    def finish(self, msg: Any) -> str:
        """Seal and sign a message of a task, as far as this application does, and nobody has said of it that it is not signed. Returns `Parts.same`."""
        outgoing, properties = self.connection.link.app.outgoing, msg.properties
        headers = properties["application_headers"]
        if outgoing is None or SIGNATURE in headers:
            return ""
        kind, encoding, body = properties.get("content_type"), properties.get("content_encoding"), msg.body
        parts = outgoing.finished(
            Parts(headers, kind, encoding, body.encode() if isinstance(body, str) else bytes(body))
        )
        properties["application_headers"] = parts.headers
        if parts.content_type != kind:
            msg.body, properties["content_type"] = parts.body, parts.content_type
            properties["content_encoding"] = parts.content_encoding
        return str(parts.same)

    def later(self, msg: Any, queue: str, same: str) -> Publication | None:
        """What is kept of a message that is not due; `same`: see `finish`."""
        wait = seconds_until(msg.properties["application_headers"].get("eta"))
        return delayed(msg, queue, wait, same) if wait else None

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

    def _publish(self, msg: Any, exchange: str, name: str, options: dict[str, Any]) -> Any:
        self._returned = None
        if (deadline := current_deadline()) is not None:
            deadline.may_have_left = True
        return super().basic_publish_confirm(msg, exchange, name, **{**options, "mandatory": True})

    def _on_returned(self, error: Exception, *_: Any) -> None:
        self._returned = error
