"""How a channel reads: what is ready is reserved, and when nothing is, one connection waits to be woken."""

import functools
import logging
import math
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty
from typing import Any
from uuid import uuid4

from redis.exceptions import NoScriptError, RedisError, ResponseError

from conventions.broker.codec import UnreadableEnvelope, envelope_fault, read_message
from conventions.broker.delivery import NONE, Delivery, ReadRequest, brought, left_by
from conventions.broker.in_flight import InFlight
from conventions.broker.redis_broker import Broker
from conventions.core.deadline import Deadline
from conventions.core.errors import NewerLayout, UnknownForm
from conventions.core.forks import call_in_child
from conventions.core.value_bounds import MESSAGE_LIMIT
from conventions.library_internals.kombu import hand_over
from conventions.storage.layout_version import refused
from conventions.transport.redis_qos import RESERVE_AT_MOST, SMALL, QoS

logger = logging.getLogger(__name__)

BLOCK_AT_MOST = 10  # seconds until an idle worker looks, although nobody woke it
LOOK_AGAIN = 1.0  # seconds until one looks that has no process for some of its queues
LOOK_EVERY = 0.01  # seconds between two looks whether a read has ended
HEAD_START = 0.5  # seconds that idle workers have to take what is due, before one that has put such messages off
RECONNECT_AFTER = 1.0  # seconds until a lost connection is made again
WAKING = 0.2  # seconds that the loop may wait for it
LOST = (RedisError, OSError, EOFError)


class ReaderFailed(Exception):
    """An answer came, and its reader could not use it, as when nobody reads what it prints any more.

    Args:
        error: what the reader raised; as itself it might be taken for that of a lost connection.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Reading:
    """The reads of a channel, which kombu's event loop starts and finishes. kombu calls the read of queues BRPOP."""

    # of the channel
    app: Any  # ours, or what stands for it in a program without one
    client: Any
    connection: Any
    qos: QoS
    _create_client: Any
    _active_queues: list[str]
    active_fanout_queues: set[str]
    _update_queue_cycle: Any
    _queue_cycle: Any
    _in_poll: Any

    _is_over = False
    _is_lost = False
    _waits = False  # the read waits to be woken before it reserves
    _mean_size = 0.0  # bytes of messages that are not small, as long as there are any
    _wanted = ReadRequest((), 1)  # what the read asked for
    _left = NONE  # queues whose next message is one too many in bytes
    _block: float = BLOCK_AT_MOST
    _rests_until = 0.0
    others_first_until = (
        0.0  # other workers read due messages first, since this one put off messages of a task that it does not know
    )
    # Takes some messages, and returns the others.
    takes_first: Callable[[Sequence[Delivery]], Sequence[Delivery]] | None = None
    after_read: Callable[[], None] | None = None  # called when all messages of a read are handled
    on_newer: Callable[[NewerLayout], None] | None = None  # called when Redis has the layout of a later release
    # Queues of jobs that take long: no more of them are read than there are processes for. Else one would wait for hours here,
    # behind another one, while a process elsewhere is free.
    long_queues: frozenset[str] = frozenset()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unacknowledged: set[str] = set()
        self._mark = f"reader-{uuid4().hex}"  # a wake-up of its own
        self._read_from: list[str] = []
        super().__init__(*args, **kwargs)
        call_in_child(self._close_inherited)

    def _close_inherited(self) -> None:
        # A socket that a pool process has, too, stays in the poller of the main process when that closes it: it is then
        # reported for ever, under a number that belongs to another connection by now.
        for name in ("client", "subclient"):
            inherited = getattr(getattr(self.__dict__.get(name), "connection", None), "_sock", None)
            if inherited is not None:
                inherited.close()

    @property
    def broker(self) -> Broker:
        """The messages."""
        broker: Broker = self.app.broker
        return broker

    @property
    def in_flight(self) -> InFlight:
        """What this process holds."""
        in_flight: InFlight = self.app.in_flight
        return in_flight

    @functools.cached_property
    def _message_limit(self) -> int:
        settings = getattr(self.app, "settings", None)
        return MESSAGE_LIMIT if settings is None else int(settings.message_limit)

    @functools.cached_property
    def subclient(self) -> Any:
        """Kombu's client for fanout, whose reads never block: one would block for ever, without any time-out."""
        client = self._create_client(asynchronous=True).pubsub()
        client.parse_response = functools.partial(client.parse_response, block=False, timeout=0)
        return client

    def _brpop_start(self, timeout: float | None = None) -> None:
        wanted = self._what_is_wanted()
        if not wanted.queues:
            return
        self._wanted = wanted
        commands = [self.broker.reserve_command(wanted)]
        if self._waits:  # both at once: the server looks in the moment in which the wait ends
            # Where a queue is left out, a process may be free for it before anything comes.
            block = self._block if len(wanted.queues) == len(self.active_queues) else min(self._block, LOOK_AGAIN)
            commands.insert(0, self.broker.wait_command([*wanted.queues, self._mark], timeout or block))
        self._queue_cycle.rotate(wanted.queues[0])
        connection = self.client.connection
        self._in_poll, self._brpop_sent_at = connection, time.monotonic()
        if self._is_over:  # looked at last: `end_reads` says so first, and then looks for a read
            self._in_poll = None
            return
        connection.send_packed_command(connection.pack_commands(commands))

    def _what_is_wanted(self) -> ReadRequest:
        """What the next read asks for."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        room = self.qos.can_consume_max_estimate()
        count = RESERVE_AT_MOST if room is None else min(room, RESERVE_AT_MOST)
        few = count
        if self.long_queues:
            few = math.floor(min(count, self.qos.room_for_long))
            if few < 1:
                queues = [one for one in queues if one not in self.long_queues]
            elif self.long_queues.issuperset(queues):
                count = few
        left = self.qos.bytes_for_next
        if not left and self._left:
            queues = [one for one in queues if one not in self._left]
        # Else the server would read many, to put most of them back.
        at_once = math.ceil(2 * left / self._mean_size) or 1 if self._mean_size else 0
        return ReadRequest(queues, max(count, 1), self._unacknowledged, self.long_queues, max(few, 1), left, at_once)

    def _note_sizes(self, deliveries: Sequence[Delivery]) -> None:
        """Note what was delivered and is not small, and how large that is in the mean."""
        sizes = {one.receipt: size for one in deliveries if (size := len(one.payload)) > SMALL}
        if sizes:
            self._mean_size = sum(sizes.values()) / len(sizes)
            self.qos.note_sizes(sizes)
        elif self._mean_size and not self._left and not self.qos.has_large:
            self._mean_size = 0.0

    def end_wait_for_small(self) -> None:
        """Let a read that waits without some queues end, where their messages have room again."""
        if self._left and self._in_poll and self._waits and not self._wanted.most_bytes and self.qos.takes_large_again:
            self._left = NONE
            with Deadline(WAKING), suppress(*LOST):  # such a read ends soon by itself
                self.broker.wake([self._mark], lifetime=1.0)

    def _brpop_read(self, **_: Any) -> bool:
        if not self._in_poll:  # ended in this turn of the loop, which was to read it
            self._close_if_lost(self.client.connection)
            raise Empty
        try:
            due, deliveries = self._reply(self.client.connection)
            # All of them are held before the first is handled, whatever that one does.
            self.in_flight.add(*(one for one in deliveries if one.queue not in self._unacknowledged))
        finally:
            self._in_poll = None  # last, for `end_reads`
        self._connected()
        self._waits = len(deliveries) < self._wanted.most  # nothing is left
        late = HEAD_START if time.monotonic() < self.others_first_until else 0.0
        self._block = BLOCK_AT_MOST if due is None else min(due + late, BLOCK_AT_MOST)
        if not deliveries:
            raise Empty
        try:
            self._deliver(deliveries)
        finally:
            self._note_sizes(deliveries)
        return True

    @staticmethod
    def _close_if_lost(connection: Any) -> None:
        """Close a connection of which nothing is expected, where something is to be read: else it would be reported for ever."""
        if connection is not None and connection._sock is not None:  # noqa: SLF001  # redis-py has no name for it
            try:
                is_lost = connection.can_read(0)
            except LOST:
                is_lost = True
            if is_lost:
                connection.disconnect()

    def _reply(self, connection: Any) -> tuple[float | None, list[Delivery]]:
        try:
            if self._waits:
                connection.read_response()
            reply = connection.read_response()
        except NoScriptError:  # the server was started anew
            if self.app.may_read():  # and may be an older copy
                self.broker.load_scripts()
            return 0.0, []
        except ResponseError as error:
            newer = refused(error)
            if newer is None or self.on_newer is None:
                raise
            self.on_newer(newer)
            return None, []
        left = left_by(reply)
        self._left = left if self._wanted.most_bytes else self._left | left  # those were not asked for
        return brought(reply)

    def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        if self.takes_first is not None:
            deliveries = self.takes_first(deliveries)
        failed: Exception | None = None
        for delivery, message in [(delivery, self._message_of(delivery)) for delivery in deliveries]:
            if message is None:
                continue
            try:
                hand_over(self.connection, message, delivery.queue)
            except Exception as error:  # noqa: BLE001  # one bad message must not end the worker, nor loop
                if delivery.queue in self._unacknowledged:  # an answer, which its reader could not use: his business
                    failed = failed or error
                else:
                    self.app.refusals.undeliverable(delivery, error)
        if self.after_read is not None:
            self.after_read()
        if failed is not None:  # after all others, which this process holds
            raise ReaderFailed(failed)

    def _message_of(self, delivery: Delivery) -> dict[str, Any] | None:
        try:
            return read_message(delivery, self._message_limit)
        except UnknownForm as error:
            logger.error("left in its queue %s: a message cannot be read: %s", delivery.queue, error)
            self.in_flight.leave(delivery.receipt)
            return None
        except Exception as error:  # noqa: BLE001  # another program wrote it, and it must not end the worker
            if delivery.queue in self._unacknowledged:  # nobody is owed an answer
                logger.warning("an answer in %s cannot be read, and is dropped: %s", delivery.queue, error)
            else:
                self.app.refusals.undeliverable(delivery, error)
            return None

    def _get(self, queue: str) -> dict[str, Any]:
        for delivery in self.broker.reserve([queue], 1):
            if queue not in self._unacknowledged:
                self.in_flight.add(delivery)
            if (message := self._message_of(delivery)) is not None:
                return message
        raise Empty

    @property
    def active_queues(self) -> list[str]:
        """The queues that are read, without those of fanout; asked in each turn of the loop."""
        return self._read_from

    def _queues_changed(self) -> None:
        self._read_from = [*dict.fromkeys(one for one in self._active_queues if one not in self.active_fanout_queues)]
        self._update_queue_cycle()

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue."""
        if no_ack:
            self._unacknowledged.add(queue)
        answer = super().basic_consume(queue, no_ack, *args, **kwargs)  # type: ignore[misc]
        self._queues_changed()
        self.abandon_read()
        return answer

    def _basic_cancel(self, consumer_tag: str) -> Any:
        answer = super()._basic_cancel(consumer_tag)  # type: ignore[misc]
        self._queues_changed()
        self.abandon_read()
        return answer

    def abandon_read(self) -> None:
        """End the read under way, and let others have what it brings, which is not wanted any more."""
        connection = self._in_poll
        if not connection:
            return
        try:
            if self._waits:
                self.broker.wake([self._mark], lifetime=1.0)
            for delivery in self._reply(connection)[1]:
                if delivery.queue in self._unacknowledged:
                    continue  # it is gone from its queue, as any answer that nobody waits for
                self.in_flight.add(delivery)
                self.in_flight.give_back(delivery.receipt)
        except LOST:  # what it would have brought comes again when its time is over
            connection.disconnect()
        finally:
            self._in_poll = None  # last, for `end_reads`
        self._waits = False

    def end_reads(self, within: float) -> None:
        """Begin no read any more, and wait until none is under way. From another thread than that which reads.

        Where that one does not come to the end of its read within so many seconds, a read that waits for messages is cut, which would
        bring what this process returns meanwhile. One that was answered is not: only that thread can read what it brings.
        """
        self._is_over = True
        deadline = time.monotonic() + within
        while (connection := self._in_poll) and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY)
        cut = getattr(connection, "_sock", None)
        if cut is not None and self._waits and not _is_answered(cut):
            with suppress(OSError):
                socket.socket.shutdown(
                    cut, socket.SHUT_RDWR
                )  # that of TLS would take its state from the thread that reads

    def close(self) -> None:
        """Close, without waiting for the read under way."""
        self.abandon_read()
        super().close()  # type: ignore[misc]

    def _receive_one(self, client: Any) -> Any:
        """Hand on what came by remote control, or as an event. Anybody may write there, and what cannot be read ends nothing."""
        try:
            return super()._receive_one(client)  # type: ignore[misc]
        except (RecursionError, UnreadableEnvelope):  # other errors are those of who handles it
            logger.exception("a message of remote control, or an event, cannot be read, and is dropped")
            return True

    def _deliver_fanout_message(self, message: Any, exchange: str) -> Any:
        if fault := envelope_fault(message):
            raise UnreadableEnvelope(fault)
        return super()._deliver_fanout_message(message, exchange)  # type: ignore[misc]

    # A lost connection is made again here.

    @property
    def rests(self) -> bool:
        """Whether the connection was lost a moment ago."""
        return time.monotonic() < self._rests_until

    def lost(self, error: BaseException) -> None:
        """The connection is gone: drop it, and let the poller make it again in a moment."""
        if not self._is_lost:
            logger.warning("the connection to the broker is lost, connecting again: %s", error)
        self._is_lost, self._waits, self._in_poll, self._in_listen = True, False, None, None
        self._rests_until = time.monotonic() + RECONNECT_AFTER
        for name in ("client", "subclient"):
            connection = getattr(self.__dict__.get(name), "connection", None)
            if connection is not None:
                with suppress(*LOST):
                    connection.disconnect()

    def _connected(self) -> None:
        if self._is_lost:
            logger.info("connected to the broker again")
            self._is_lost = False


def _is_answered(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
