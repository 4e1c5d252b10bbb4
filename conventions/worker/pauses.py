"""`WorkerPauses`: what one worker does of the pauses that people make: it begins nothing of what is paused.

It reads them each second. A paused queue is not consumed; what was read of it and has not begun goes back. Messages of a paused task
are read and held back in their queue, until the task is resumed. What a process of the pool has begun, or was given, goes on.
"""

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any
from uuid import uuid4

from celery.worker import state
from redis.exceptions import RedisError

from conventions.broker.codec import DELIVERY
from conventions.broker.header_names import COPY
from conventions.broker.redis_broker import Broker
from conventions.core.background_rounds import Rounds
from conventions.pauses.pause_store import PausedNow, Pauses
from conventions.tasks.aliases import names_of
from conventions.worker.application import WorkerApplication
from conventions.worker.put_off_unknown import send_again
from conventions.worker.shutdown import stops

logger = logging.getLogger(__name__)

LOOK_EVERY = 1.0  # seconds
AWAY = 3600.0  # seconds that a message of a paused task is not looked at again, unless the task is resumed; in Redis
AWAY_ELSEWHERE = 60.0  # the same where the broker does not let a message be found again
COMES_AGAIN = 1.0  # seconds until a message comes again that a worker without a loop has read of a paused queue
FORGOTTEN_EVERY = 30  # looks
ALL = 1 << 40


class WorkerPauses:
    """Those of one consumer. The thread of its loop uses it, but for the look."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._app: WorkerApplication = consumer.app
        self._pauses = Pauses(self._app.store)
        self._now: PausedNow | None = None
        self._left: set[str] = set()  # queues that it consumes when they are resumed
        # The names of paused tasks, with aliases, and with the parts of batches.
        self._tasks: frozenset[str] = frozenset()
        self._looks = 0
        fault = "whether queues are paused is not known now, and what was known holds"
        self._rounds = Rounds("pauses", self._look, LOOK_EVERY, fault=fault, logger=logger)

    @property
    def revision(self) -> int:
        """The revision of the pauses that it follows."""
        return 0 if self._now is None else self._now.revision

    @property
    def left(self) -> Iterable[str]:
        """The queues that it does not consume for now."""
        return tuple(self._left)

    def connect(self) -> None:
        """A connection is there: nothing is read before it is known what is paused."""
        try:
            self.follow(self._pauses.read())
        except RedisError:  # without Redis no job begins; the next look is soon
            logger.warning("what is paused is not known yet")
        self._rounds.start()

    def attach(self) -> None:
        """Messages are read: let those go on that were held back for a task that is resumed by now."""
        self._app.in_flight.soon(self._let_through_forgotten)

    def stop(self) -> None:
        """Look no more."""
        self._rounds.stop()

    def _look(self) -> None:
        """From another thread."""
        found, known = self._pauses.read(), self._now
        is_new = known is None or (known.revision, known.pauses) != (found.revision, found.pauses)
        # Remote control may have added one of them.
        if is_new or any(self._is_paused(name, found) for name in list(self._app.amqp.queues.consume_from)):
            self._app.loop_calls.in_loop(partial(self._follow_safely, found))
        self._looks += 1
        if self._looks % FORGOTTEN_EVERY == 0 and self._app.port.can.limits:
            self._app.in_flight.soon(self._let_through_forgotten)

    def _follow_safely(self, found: PausedNow) -> None:
        try:
            self.follow(found)
        except Exception:  # it must not end the worker: a connection that is lost comes again, and follows then
            logger.exception("a pause is not followed yet")

    def follow(self, found: PausedNow) -> None:
        """Consume what is not paused, and nothing else."""
        if stops():
            return
        before, self._now = self._now, found
        were_paused, self._tasks = self._tasks, _names(self._app, found)
        self._leave(found)
        self._go_on(found)
        if found.pauses:
            self._consumer.intake.review()
        for name in were_paused - self._tasks:
            self._app.in_flight.soon(partial(_let_through, name))
        if before is not None:
            for target in {*before.pauses} ^ {*found.pauses}:
                logger.warning("%s is %s", target, "paused" if target in found.pauses else "resumed")
        elif found.pauses:
            logger.warning("paused: %s", ", ".join(sorted(map(str, found.pauses))))

    def _is_paused(self, queue: str, found: PausedNow) -> bool:
        return queue in found.names("queue") or self._consumer.hostname in found.names("worker")

    def _leave(self, found: PausedNow) -> None:
        """Stop consuming; a worker without a loop has no thread that may do it, and gives back what it reads."""
        consumer = self._consumer
        if consumer.hub is None and self._connected:
            return
        for name in [name for name in self._app.amqp.queues.consume_from if self._is_paused(name, found)]:
            self._left.add(name)
            if self._connected:
                consumer.cancel_task_queue(name)
            else:
                self._app.amqp.queues.deselect(name)

    def _go_on(self, found: PausedNow) -> None:
        queues = self._app.amqp.queues
        for name in [name for name in self._left if not self._is_paused(name, found)]:
            self._left.discard(name)
            queues.select_add(queues[name])
            if self._connected:
                self._consumer.add_task_queue(name)

    @property
    def _connected(self) -> bool:
        return getattr(self._consumer.task_consumer, "channel", None) is not None

    def holds(self, task: str) -> bool:
        """Whether a task is paused, by any name of it."""
        return bool(self._tasks) and task in self._tasks

    def holds_back(self, task: str, message: Any) -> bool:
        """Hold back a message that was read, if its task is paused."""
        if not self.holds(task):
            return False
        self._hold_back(str((message.headers or {}).get("task") or task), message)
        return True

    def returns(self, request: Any) -> bool:
        """Return the message of a request that is to begin now, if it is paused, and let Celery forget it."""
        now = self._now
        if now is None or not now.pauses:
            return False
        message = request.message
        delivery = (message.properties or {}).get(DELIVERY)
        queue = delivery["queue"] if delivery else str((message.delivery_info or {}).get("routing_key") or "")
        if self.holds(request.task.name):
            self._hold_back(request.name, message)
        elif self._is_paused(queue, now):
            self._give_back(message)
        else:
            return False
        state.task_ready(request)
        return True

    def _hold_back(self, task: str, message: Any) -> None:
        delivery = (message.properties or {}).get(DELIVERY)
        if delivery is None:
            # Marked as a copy: what is delayed under this id may not be forgotten yet, and would be taken for the same message.
            send_again(self._consumer, message, AWAY_ELSEWHERE, {COPY: uuid4().hex})
            return
        self._app.in_flight.hold_back(message.delivery_tag, task, AWAY, "paused")
        message.channel.qos.let_go(message.delivery_tag)

    def _give_back(self, message: Any) -> None:
        has_loop = self._consumer.hub is not None
        if (message.properties or {}).get(DELIVERY) is not None:
            self._app.in_flight.give_back(message.delivery_tag, wait=0.0 if has_loop else COMES_AGAIN)
            message.channel.qos.let_go(message.delivery_tag)
            return
        reject = partial(message.reject_log_error, logger, self._consumer.connection_errors, requeue=True)
        if has_loop:
            reject()
        else:
            self._app.loop_calls.later(COMES_AGAIN, reject)

    def _let_through_forgotten(self, broker: Broker) -> None:
        """From another thread."""
        for name in broker.held_back_tasks("paused"):
            if not self.holds(name):
                _let_through(name, broker)


def _let_through(task: str, broker: Broker) -> None:
    broker.let_through(task, ALL, "paused")


def _names(app: WorkerApplication, found: PausedNow) -> frozenset[str]:
    paused = found.names("task")
    return paused | names_of(app.tasks, paused) if paused else paused
