"""The channel of our Redis transport: how messages are sent, acknowledged and returned; `transport/redis_reading.py` is how they are read."""

import functools
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from kombu.transport import redis, virtual
from redis import Redis as RedisClient
from redis.exceptions import RedisError

from conventions.batches.batch_state import Batches
from conventions.broker.bulk_publish import PublishBatch
from conventions.broker.caller_headers import check_sender
from conventions.broker.codec import bytes_of, in_base64, parsed, request_digest, written_message
from conventions.broker.delivery import Delivery
from conventions.broker.header_names import SIGNATURE
from conventions.broker.in_flight import InFlight
from conventions.broker.redis_broker import Broker, Publication
from conventions.core.errors import PayloadError, UndeliverableMessage
from conventions.core.redis_answers import fault_of, refusal_of
from conventions.core.settings import DEFAULT_JOURNAL_LIMIT, DEFAULT_KEEP_RESULT_FOR, DEFAULT_PREFIX
from conventions.execution.purge_queues import is_reply_queue, purge
from conventions.records.journal import Journal
from conventions.sealing.seal_outgoing import Parts
from conventions.storage.redis_connections import BoundedRetry, bound_sentinels, bounded
from conventions.storage.redis_store import Store
from conventions.transport.redis_qos import REQUEUE_AFTER, QoS
from conventions.transport.redis_reading import Reading

logger = logging.getLogger(__name__)

REPLY_LIFETIME = 60.0  # seconds that an answer to remote control waits for its reader


class Message(virtual.Message):
    """A message whose JSON is read the short way."""

    def _decode(self) -> Any:
        if (self.content_type, self.content_encoding) != ("application/json", "utf-8"):
            return super()._decode()  # type: ignore[no-untyped-call]  # kombu has few types
        try:
            return parsed(self.body)
        except UndeliverableMessage:
            raise
        except Exception:  # noqa: BLE001  # kombu says what is wrong, in its words
            return super()._decode()  # type: ignore[no-untyped-call]  # the same


class ConventionsChannel(Reading):
    """What our channels are made of, on kombu's channel for one server or for Sentinel."""

    QoS = QoS
    Message = Message
    from_transport_options = (*redis.SentinelChannel.from_transport_options, "link")
    link: Any = None  # knows the application; see `redis_transport.Link`

    # kombu's channel, which the classes below bring in
    state: Any
    typeof: Any
    _get_message_priority: Any

    @functools.cached_property
    def app(self) -> Any:
        """The application that this channel sends for, or what stands for it in a program without one."""
        return self.link.app if self.link else _Foreign(self)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._connparams(asynchronous=asynchronous)  # type: ignore[misc]  # of the classes below
        return parameters | {"connection_class": bounded(parameters["connection_class"])}

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Note which queue an exchange has, for programs that send to exchanges; ours name the queue.

        A worker that starts at a full server must run what waits there: nothing else makes room.
        """
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]  # of the classes below
        except RedisError as error:
            if not refusal_of(error):
                raise
            logger.warning("queue %s: programs that send to exchanges may not find it: %s", queue, fault_of(error))

    def _refresh_bindings(self, queues: Sequence[str]) -> None:
        """The same, again and again, for queues that are forgotten some time after their reader."""
        try:
            super()._refresh_bindings(queues)  # type: ignore[misc]  # the same
        except RedisError as error:
            if not refusal_of(error):
                raise

    # Sending.

    def _put(
        self, queue: str, message: dict[str, Any], *, _publish_batch: PublishBatch | None = None, **_: Any
    ) -> None:
        headers, properties, same = message["headers"], message["properties"], ""
        check_sender(headers, self.app.main)
        if (outgoing := self.app.outgoing) is not None and "task" in headers and SIGNATURE not in headers:
            kind, encoding = message["content-type"], message["content-encoding"]
            parts = outgoing.finished(Parts(headers, kind, encoding, bytes_of(message["body"])))
            message["headers"], same = parts.headers, parts.same
            headers = parts.headers
            if (
                parts.content_type != kind
            ):  # a copy: a template for other messages is made of this one, which is not sealed
                sealed = {"content-type": parts.content_type, "content-encoding": parts.content_encoding}
                message = {**message, "body": in_base64(parts.body), **sealed}
        is_reply = is_reply_queue(queue)
        payload = written_message(message)
        if len(payload) > self._message_limit:
            raise PayloadError(
                f"{headers.get('task') or queue}: the message has {len(payload):,} bytes with all that follows it, the limit is "
                f"{self._message_limit:,}; store the data, pass its id, and look it up in run"
            )
        publication = Publication(
            tag=str(headers.get("id") or properties["delivery_tag"]),
            queue=queue,
            payload=payload,
            priority=self._get_message_priority(message),
            wait=_wait(headers.get("eta")),
            digest=request_digest(headers, same or message["body"]),
            generation=int(headers.get("x_generation") or 0),
            lifetime=REPLY_LIFETIME if is_reply else 0.0,
        )
        if _publish_batch is None:
            self.broker.publish([publication])
        else:
            _publish_batch.add(publication)

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **_: Any) -> None:
        # Events and remote control are not kept, so nothing is won by sending them later.
        super()._put_fanout(exchange, message, routing_key)  # type: ignore[misc]

    supports_batch_publish = True  # kombu's could be sent twice by redis-py's retries, which changes nothing here

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """What `Producer.batch` collects messages in."""
        return PublishBatch(self, max_size)

    def _lookup(self, exchange: str, routing_key: str, default: Any = None) -> list[str]:
        # What this process declared itself needs no round trip.
        if self.typeof(exchange).type == "direct" and exchange in self.state.exchanges:
            table = self.state.exchanges[exchange]["table"]
            found = [queue for key, _, queue in table if key == routing_key]
            if found:
                return found
        return super()._lookup(exchange, routing_key, default)  # type: ignore[misc,no-any-return]

    # Queues.

    def queue_declare(self, *args: Any, **kwargs: Any) -> Any:
        """Kombu's answer; nobody knows here how many consume a queue, and its 0 would say that none does."""
        return super().queue_declare(*args, **kwargs)._replace(consumer_count=None)  # type: ignore[misc]

    def _size(self, queue: str) -> int:
        return self.broker.sizes(queue).ready

    def _purge(self, queue: str) -> int:
        return purge(self.app, [queue])[queue]

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> int:
        """Delete a queue with what waits in it; returns how many messages that were."""
        sizes = self.broker.sizes(queue)
        if if_empty and (sizes.ready or sizes.delayed):
            return 0
        removed = self._purge(queue)
        super().queue_delete(queue, if_unused, **kwargs)  # type: ignore[misc]
        return removed

    def _has_queue(self, queue: str, **_: Any) -> bool:  # noqa: ARG002
        return True  # a queue is there as soon as somebody sends to it


class _Foreign:
    """What a channel needs that was opened without `create_app`, as by kombu alone."""

    outgoing = None  # it has no keys

    def __init__(self, channel: Any) -> None:
        prefix = channel.global_keyprefix.strip("{}:") or DEFAULT_PREFIX
        store = Store.over(RedisClient(connection_pool=channel.pool), prefix)
        self.broker = Broker(store, journal_limit=DEFAULT_JOURNAL_LIMIT)
        self.journal, self.batches = Journal(store), Batches(store, DEFAULT_KEEP_RESULT_FOR)
        self.tasks: dict[str, Any] = {}
        self.in_flight = InFlight(self.broker)
        self.refusals = self

    def may_read(self) -> bool:
        """Whether messages may be read: nobody can tell here whether the server is older than SQL."""
        return True

    def undeliverable(self, delivery: Delivery, error: BaseException) -> None:
        """Leave it to a worker."""
        logger.error("a message in %s cannot be read: %s", delivery.queue, error)
        self.in_flight.give_back(delivery.receipt, wait=REQUEUE_AFTER, counted=True)


class Channel(ConventionsChannel, redis.Channel):  # type: ignore[misc]
    """A channel to one server."""


class SentinelChannel(ConventionsChannel, redis.SentinelChannel):  # type: ignore[misc]
    """A channel to the master that Sentinel names."""

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        pool = super()._sentinel_managed_pool(asynchronous)  # type: ignore[no-untyped-call]  # kombu has few types
        bound_sentinels(pool.sentinel_manager, BoundedRetry(retries=0, patience=self.socket_timeout))
        return pool


def _wait(eta: str | None) -> float:
    """Seconds until then, by the clock that set the time: the server's may differ."""
    if not eta:
        return 0.0
    moment = datetime.fromisoformat(eta)
    return max(0.0, ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
