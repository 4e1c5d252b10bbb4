"""`Delays`: messages for RabbitMQ that are not due wait in the Redis of the claims, and workers forward them.

RabbitMQ's own delays are queues that hand expired messages to each other. When a RabbitMQ 4.0 is killed, what expires meanwhile stays there
for good (`docs/brokers.md`). Here a message is forwarded as a worker would run it: it is reserved, RabbitMQ confirms it, and then it is
acknowledged. So a kill repeats a message and loses none.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from conventions.broker.bulk_publish import NotTaken
from conventions.broker.codec import bytes_of, in_base64, parsed, request_digest, without_delay, written_message
from conventions.broker.delivery import Delivery, tag_of
from conventions.broker.header_names import COPY, GENERATION, SIGNATURE, UNKNOWN
from conventions.broker.redis_broker import Broker, HeldMessage, Publication
from conventions.core.background_rounds import Rounds
from conventions.core.deadline import Deadline
from conventions.core.errors import BrokerUnavailable, ConfigurationError, UndeliverableMessage
from conventions.library_internals.kombu import publish_batch_of

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.2  # seconds between two looks for what is due
AT_ONCE = 200  # messages that are forwarded together
AGAIN_AFTER = 1.0  # seconds, where RabbitMQ does not take them
UNREADABLE_AFTER = 60.0  # seconds, where nobody can read them
TELL_EVERY = 60.0  # seconds between two lines of the log about one queue
PERSISTENT = 2  # AMQP's delivery mode

Messages: TypeAlias = Sequence[tuple[Delivery, dict[str, Any]]]
"""Each as it came, and what it holds."""


class Sends(Protocol):
    """What it takes to forward messages; `RabbitMQPort` has it."""

    def producer(self, given: Any) -> AbstractContextManager[Any]:
        """A producer for many messages. Raises: BrokerUnavailable."""


class Delays:
    """Those of one application.

    Args:
        broker: the messages in Redis.
        sends: where they go.
        patience: seconds in which RabbitMQ must take them.
    """

    def __init__(self, broker: Broker, sends: Sends, patience: float) -> None:
        self._broker, self._sends, self._patience = broker, sends, patience
        fault = "messages that are due are not forwarded now"
        self._rounds = Rounds("delays", self.forward, self._pause, fault=fault, logger=logger)
        self._has_more = False
        self._told_until: dict[str, float] = {}

    def keep(self, publications: Sequence[Publication], *, on_disk: bool) -> None:
        """Keep messages until they are due; `on_disk`: return when they are there. Raises: RedisError, BrokerUnavailable."""
        self._broker.publish(publications)
        if on_disk:
            self._broker.store.wait_for_disk()

    def start(self) -> None:
        """A worker: begin to forward."""
        self._rounds.start()

    def stop(self) -> None:
        """Forward no more."""
        self._rounds.stop()

    def _pause(self) -> float:
        return 0.0 if self._has_more else LOOK_EVERY

    def forward(self) -> int:
        """Forward what is due, some at a time. Returns how many. Raises: RedisError, BrokerUnavailable."""
        queues = self._broker.queues()
        due = self._broker.reserve(queues, AT_ONCE) if queues else []
        self._has_more = len(due) == AT_ONCE
        readable = []
        for one in due:
            try:
                readable.append((one, parsed(one.payload)))
            except (ValueError, UndeliverableMessage):
                logger.error("delays: a message in %s cannot be read, and stays there", one.queue)
                self._broker.give_back([_held(one)], wait=UNREADABLE_AFTER)
        work: list[Messages] = [
            [both for both in readable if both[0].queue == queue] for queue in {one.queue for one, _ in readable}
        ]
        while work:
            messages = work.pop()
            try:
                work += self._forward(messages)
            except BrokerUnavailable as error:
                self._return([*messages, *(both for others in work for both in others)], AGAIN_AFTER, error)
                raise
        return len(readable)

    def _forward(self, messages: Messages) -> list[Messages]:
        """Forward messages of one queue. Returns what is to be tried by itself, since one of them may be a fault of its own.

        Raises:
            BrokerUnavailable: RabbitMQ does not answer; nothing of this is known to be there.
            RedisError: what is there comes again.
        """
        try:
            self._send(messages)
        except NotTaken as error:  # the others are there
            self._has_more = False
            self._return([one for one in messages if _id_of(one) in error.ids], AGAIN_AFTER, error)
            self._acknowledge([one for one in messages if _id_of(one) not in error.ids])
        except (BrokerUnavailable, OperationalError, OSError) as error:
            self._has_more = False
            raise BrokerUnavailable(f"RabbitMQ does not take {len(messages)} messages: {error}") from error
        except ConfigurationError as error:  # its queue is another program's
            self._return(messages, UNREADABLE_AFTER, error)
        except Exception as error:  # noqa: BLE001  # whatever a message holds, it must not keep the others back
            if len(messages) > 1:
                return [[one] for one in messages]
            self._return(messages, UNREADABLE_AFTER, error)
        else:
            self._acknowledge(messages)
        return []

    def _send(self, messages: Messages) -> None:
        with (
            Deadline(self._patience),
            self._sends.producer(None) as producer,
            producer.batch(len(messages) + 1) as batch,
        ):
            for one, message in messages:
                _publish(producer, one, message)
            publish_batch_of(batch).once = True

    def _return(self, messages: Messages, wait: float, error: Exception) -> None:
        if not messages:
            return
        self._broker.give_back([_held(one) for one, _ in messages], wait=wait)
        for queue in {one.queue for one, _ in messages}:
            if time.monotonic() >= self._told_until.get(queue, 0.0):
                self._told_until[queue] = time.monotonic() + TELL_EVERY
                logger.warning("delays: messages for %s wait longer: %s", queue, error)

    def _acknowledge(self, messages: Messages) -> None:
        held = [_held(one) for one, _ in messages]
        if not held:
            return
        try:
            self._broker.acknowledge(held)
        except RedisError:  # they come again, and their claims tell that they have run
            logger.warning("delays: %d messages were forwarded, and are forwarded once more", len(held))
            time.sleep(LOOK_EVERY)
            raise


def _id_of(message: tuple[Delivery, dict[str, Any]]) -> str:
    return str(message[1]["properties"].get("correlation_id", ""))


def delayed(message: Any, queue: str, wait: float, same: str = "") -> Publication:
    """A message of py-amqp, as Redis keeps it.

    Args:
        message: as kombu made it.
        queue: the name that our settings use.
        wait: seconds until it is due.
        same: of a sealed message, what those that hold the same have in common; else empty.
    """
    properties = dict(message.properties)
    headers = properties.pop("application_headers", None) or {}
    body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
    tag, text = str(headers.get("id") or ""), in_base64(body)
    priority = properties.get("priority")
    stored = {
        "body": text,
        "headers": headers,
        "content-type": properties.pop("content_type", None),
        "content-encoding": properties.pop("content_encoding", None),
        "properties": {
            **properties,
            "body_encoding": "base64",
            "delivery_tag": tag,
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }
    return Publication(
        tag, queue, written_message(stored), int(priority) if isinstance(priority, int) else 0, wait,
        request_digest(headers, same or text), int(headers.get(GENERATION) or 0),
    )  # fmt: skip


def is_copy(message: Any) -> bool:
    """Whether a message takes the place of one that RabbitMQ has on its disks."""
    headers = message.properties.get("application_headers") or {}
    return bool(headers.get(COPY) or headers.get(UNKNOWN))


def _publish(producer: Any, one: Delivery, message: dict[str, Any]) -> None:
    properties = message["properties"]
    producer.publish(
        bytes_of(message["body"]),
        exchange="",
        routing_key=one.queue,
        content_type=message["content-type"],
        content_encoding=message["content-encoding"],
        # One that is not signed stays so: it is not this process that has sent it.
        headers={SIGNATURE: "", **message["headers"], **without_delay(message["headers"])},
        priority=properties.get("priority"),
        correlation_id=properties.get("correlation_id"),
        reply_to=properties.get("reply_to"),
        delivery_mode=PERSISTENT,
        retry=False,
    )


def _held(one: Delivery) -> HeldMessage:
    return HeldMessage(tag_of(one.tag), one.queue, one.receipt)


def seconds_until(eta: Any, now: datetime | None = None) -> float:
    """Seconds until a message is due, 0 if it is, or does not say when.

    Args:
        eta: in ISO 8601.
        now: aware; for tests.
    """
    now = now or datetime.now(UTC)
    try:
        due = datetime.fromisoformat(eta) if eta else now
    except (TypeError, ValueError):  # another program wrote it, and a worker refuses it
        return 0.0
    return max((due if due.tzinfo else due.replace(tzinfo=UTC)).timestamp() - now.timestamp(), 0.0)
