"""The channel of our Redis transport: how messages are sent, acknowledged and returned; `transport/redis_reading.py` is how they are read."""

import functools
import logging
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from typing import Any

from kombu.transport import redis, virtual
from redis import Redis as RedisClient
from redis.exceptions import RedisError

from conventions.batches.batch_state import Batches
from conventions.broker.bulk_publish import PublishBatch
from conventions.broker.codec import parsed, request_digest, written_message
from conventions.broker.delivery import Delivery
from conventions.broker.in_flight import InFlight
from conventions.broker.redis_broker import Broker, Publication
from conventions.core.errors import PayloadError, UndeliverableMessage
from conventions.core.redis_answers import fault_of, refusal_of
from conventions.core.settings import DEFAULT_JOURNAL_LIMIT, DEFAULT_PREFIX
from conventions.execution.purge import is_reply_queue, purge
from conventions.records.journal import Journal
from conventions.storage.redis_connections import BoundedRetry, bound_sentinels, bounded
from conventions.storage.redis_store import Store
from conventions.transport.redis_reading import RESERVE_AT_MOST, Reading

logger = logging.getLogger(__name__)

NO_LIMIT = 1 << 40  # bytes
REQUEUE_AFTER = 1.0  # seconds until a rejected message comes again: at once, it would come a thousand times a second
KEPT = timedelta(days=8)  # of a batch that loses messages, where no settings say how long
REPLY_LIFETIME = 60.0  # seconds that an answer to remote control waits for its reader


class QoS(virtual.QoS):
    """How many messages the channel may hold; who holds them is known to `InFlight`.

    Attributes:
        ahead: messages for each process that `prefetch_count` counts. Where they are several, also where no more are held than
            that, the next ones are read when half of them have ended, or a whole read fits, so that one read brings
            several; else whenever there is room.
        room: says how many messages of short jobs so many processes take; `None`: `prefetch_count` is all that may be held.
        most_bytes: what all messages that are held may have together, beside one for each process; 0: any.
        starves: says whether a process is free, and nothing waits here for it: then it is read for, however few fit.
    """

    ahead = 1
    most_bytes = 0
    room: Callable[[float], int] | None = None
    starves: Callable[[], bool] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # kombu has few types
        self._slow: set[str] = set()
        self._aside: dict[str, bool] = {}  # whether they were slow
        self._large: dict[str, int] = {}  # bytes of those that are not small

    @property
    def _limit(self) -> int:
        if not (self.room and self.prefetch_count):
            return self.prefetch_count
        left = max(self.room_for_long, 0)
        return max(self.prefetch_count, len(self._slow) + self.room(left))

    @property
    def _held(self) -> int:
        return len(self._delivered) - len(self._dirty) - len(self._aside)

    def set_aside(self, delivery_tag: str) -> None:
        """A message that is held waits for the rate limit of its task, and takes no room from others until `take_back`."""
        self._aside[delivery_tag] = delivery_tag in self._slow
        self._slow.discard(delivery_tag)

    def take_back(self, delivery_tag: str) -> None:
        """It counts again."""
        if self._aside.pop(delivery_tag, False):
            self._slow.add(delivery_tag)

    def note_size(self, delivery_tag: str, size: int) -> None:
        """A message that was delivered has so many bytes; of small ones the number is bound enough."""
        self._large[delivery_tag] = size

    @property
    def bytes_left(self) -> int:
        """How many more bytes may be held, beside the largest message for each process; not above zero: no more."""
        if not self.most_bytes:
            return NO_LIMIT
        if self._large:
            self._large = {
                tag: size for tag, size in self._large.items() if tag in self._delivered and tag not in self._dirty
            }
        sizes = self._large.values()
        return self.most_bytes - sum(sizes) + sum(nlargest(self._processes, sizes))  # what runs may be large

    @property
    def _processes(self) -> int:
        return max(self.prefetch_count // max(self.ahead, 1), 1)

    @property
    def _is_full(self) -> bool:
        """Whether the bytes are used up, and each process has a message."""
        if not self._large or self.bytes_left > 0 or self._held < self._processes:
            return False
        return self.starves is None or not self.starves()

    @property
    def has_large(self) -> bool:
        """Whether messages are held that are not small."""
        return bool(self._large)

    def bytes_for(self, coming: Sequence[int]) -> int:
        """How many bytes those may have that the next read brings, beside small ones; 0: only small ones may come.

        Args:
            coming: bytes of messages that are not small and on their way.
        """
        left = self.bytes_left - sum(coming)
        if left > 0:
            return left
        return 0 if coming or self._is_full else 1  # one always comes where a process has none

    @property
    def takes_large_again(self) -> bool:
        """Whether a read that waits without them should end, since those that are not small have room."""
        return not self._is_full and (self.bytes_left > self.most_bytes // 4 or self._held < self._processes)

    def mark_slow(self, delivery_tag: str) -> None:
        """A message that is held is of a job that may take long, or does: it needs a process of its own."""
        self._slow.add(delivery_tag)

    def _count_slow(self) -> int:
        self._slow = {tag for tag in self._slow if tag in self._delivered and tag not in self._dirty}
        return len(self._slow)

    @property
    def room_for_slow(self) -> float:
        """How many more slow ones may be held, by `prefetch_count`; below zero: some are too many."""
        return self.prefetch_count - self._count_slow() if self.prefetch_count else math.inf

    @property
    def room_for_long(self) -> float:
        """How many processes the slow ones leave; below zero: some wait."""
        return self.prefetch_count / max(self.ahead, 1) - self._count_slow() if self.prefetch_count else math.inf

    @property
    def is_beyond_prefetch(self) -> bool:
        """Whether more are held than without `room`."""
        return 0 < self.prefetch_count < self._held

    def can_consume(self) -> bool:
        """Whether the next messages may be read."""
        limit, held = self._limit, self._held
        if not limit or held >= limit:
            return not limit
        if limit <= self.prefetch_count:  # which a group of one process may be more than half of
            return self.ahead <= 1 or held <= limit // 2 or (self.starves is not None and self.starves())
        slow = len(self._slow)  # they may be there for hours
        return held - slow <= max((limit - slow) // 2, limit - slow - RESERVE_AT_MOST)

    def can_consume_max_estimate(self) -> int | None:
        """How many messages the next read may bring; `None`: any number."""
        limit = self._limit
        return max(limit - self._held, 0) if limit else None

    def has_room_for(self, count: int) -> bool:
        """Whether so many more may be held because what runs is short."""
        return self.prefetch_count < count <= self._limit - self._held

    def let_go(self, delivery_tag: str) -> None:
        """The message is in other hands, or gone; Redis knows."""
        self._quick_ack(delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """The message has ended."""
        self.channel.in_flight.acknowledge(delivery_tag)
        self._quick_ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Return the message, or drop it: whoever rejects for good has recorded why."""
        if requeue:
            self.channel.in_flight.give_back(delivery_tag, wait=REQUEUE_AFTER, counted=True)
        else:
            self.channel.in_flight.acknowledge(delivery_tag)
        self._quick_ack(delivery_tag)

    def restore_unacked(self, client: Any = None) -> list[Any]:  # noqa: ARG002  # kombu's signature
        """Return what has not started; what runs goes on, and is acknowledged when it ends, channel or not."""
        self._flush()  # type: ignore[no-untyped-call]  # kombu has few types
        self.channel.in_flight.give_back_unstarted(set(self._delivered))
        self._delivered.clear()
        return []

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """The sweep of `InFlight` does this."""


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
    link: Any = None  # knows the application; see `transport.Link`

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
        headers, properties = message["headers"], message["properties"]
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
            digest=request_digest(headers, message["body"]),
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

    def __init__(self, channel: Any) -> None:
        prefix = channel.global_keyprefix.strip("{}:") or DEFAULT_PREFIX
        store = Store.over(RedisClient(connection_pool=channel.pool), prefix)
        self.broker = Broker(store, journal_limit=DEFAULT_JOURNAL_LIMIT)
        self.journal, self.batches = Journal(store), Batches(store, KEPT)
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
