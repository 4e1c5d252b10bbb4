"""`Lane`: short jobs go to a process of the pool together, several in one turn of the worker's loop (protocol 12).

What Celery would hand to the pool (`fast_lane/door.py`) is gathered here until the read of messages is over, and handed over as
soon as a process is free. How many go together follows from how long jobs of each task take: see `Paces`.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from celery.exceptions import TaskRevokedError
from celery.worker import state

from conventions.core.errors import UndeliverableMessage
from conventions.fast_lane.group import JobGroup, comes_again, hard_limit
from conventions.fast_lane.group_size import CLAIMED, HANDED, MOST, RETURN_AFTER, TOGETHER, GroupSize, Paces
from conventions.library_internals.celery_worker import future_of
from conventions.worker.shutdown import stops

logger = logging.getLogger(__name__)

GROUPS = 3  # for each process: one that runs, the next one, and one that is being read
SOON = 0.05  # seconds
LOOKED = 0.2  # seconds after which it is known what of that which is held is in other hands


class Lane:
    """The jobs that one worker has and no process yet. Used by the thread of the worker's loop."""

    def __init__(self) -> None:
        self.paces = Paces()
        self.grouping: set[str] = set()  # names of tasks whose jobs may go together
        self._waiting: deque[Any] = deque()
        self._groups: set[JobGroup] = set()
        self._apart: list[Future[Any]] = []  # what a pool of threads was given beside groups, until it has ended
        self._long_queues: Collection[str] = ()
        self._is_asking = False  # a ticket waits for a free process
        self._is_flushing = False
        self._handed_at = 0.0  # when the pool was given something
        self.consumer: Any = None

    def attach(self, consumer: Any, long_queues: Collection[str] = ()) -> None:
        """Take the place of Celery's step from message to pool, for this consumer."""
        self.consumer, self._long_queues = consumer, long_queues
        self.clear()

    def clear(self) -> None:
        """Forget what waits: its messages go back to their queues."""
        self._waiting.clear()
        self._is_asking = False
        self._groups = {group for group in self._groups if group.begun_at is not None}  # the pool drops the others

    # From the messages to the pool.

    def note_runtime(self, task: str, seconds: float | None, process: int | None) -> None:
        """A job of a group has ended, in this process."""
        if seconds is not None:
            self.paces.add(task, seconds, process, together=True)

    def room(self, processes: float) -> int:
        """Messages of short jobs that so many processes take: those of `GROUPS` each; none where jobs are not short."""
        mix = self.paces.mix
        return math.floor(processes * GROUPS * min(mix.fitting(HANDED), MOST)) if mix.is_short else 0

    def starves(self) -> bool:
        """Whether a process is free, and nothing waits for it."""
        pool = self.consumer.pool
        free = self.consumer.controller.semaphore.value if pool.uses_semaphore else self._free()
        return not self._waiting and free > 0

    @property
    def knows_short(self) -> bool:
        """Whether jobs are known to be short of any task whose jobs may go together."""
        return any(map(self.paces.is_short, self.grouping))

    def take(self, request: Any) -> None:
        """Hand a request to the pool, together with others unless it goes alone, once a process is free."""
        self._waiting.append(request)

    def flush(self) -> None:
        """A read is over: hand over what has come, as far as processes are free."""
        if self._is_flushing:  # a job that ends at once, as those of a solo pool do, calls this within this
            return
        self._is_flushing = True
        try:
            while self._waiting and not self._is_asking and not stops() and self._free() > 0:
                self._is_asking = True
                self.consumer.on_task_request(self)  # runs `execute_using_pool` once a process is free
        finally:
            self._is_flushing = False
        self.consumer.write_to_pool()

    def _free(self) -> int:
        """Processes or threads that have nothing to do, by Celery's count or ours."""
        pool = self.consumer.pool
        if pool.uses_semaphore:
            return 1
        self._apart = [one for one in self._apart if not one.done()]
        return int(pool.limit) - len(self._groups) - len(self._apart)

    @property
    def _qos(self) -> Any:
        return self.consumer.task_consumer.channel.qos

    def execute_using_pool(self, pool: Any, **_: Any) -> None:
        """A process is free: give it as many as may go together. Raises: TaskRevokedError when nothing waits any more."""
        self._is_asking = False
        self._handed_at = time.monotonic()
        parts = self._next_group(pool)
        if not parts:
            raise TaskRevokedError
        if parts[0][0].goes_alone or (len(parts) == len(parts[0]) == 1 and pool.uses_semaphore):
            try:
                self._start_alone(parts[0][0], pool)
            except TaskRevokedError:
                raise
            except Exception as error:  # whatever it is, it must not end the worker
                self._fail(parts[0][0], error)
                raise TaskRevokedError from error
        else:
            group = JobGroup(self, parts, self.consumer.hostname)
            self._groups.add(group)
            group.start(pool)
        self.flush()

    def _start_alone(self, request: Any, pool: Any) -> None:
        heard = request.on_success  # of a class that Celery makes for each task

        def on_success(result: Any, **options: Any) -> None:
            del request.on_success
            if not isinstance(result, tuple):  # a pool of threads, or solo, tells of a `SystemExit` this way
                self.in_loop(lambda: request.on_exit(result.exception))
                return
            failed, _, runtime = result
            seconds = time.time() - request.time_start if failed else runtime
            heard(result, **options)
            self.in_loop(lambda: self._note_alone(request, seconds))

        request.on_success = on_success
        future = future_of(request.execute_using_pool(pool))
        if future is not None:
            self._apart.append(future)
            future.add_done_callback(lambda _: self.in_loop(self.flush))

    def _note_alone(self, request: Any, seconds: float | None) -> None:
        if seconds is not None:
            is_long = request.delivery["queue"] in self._long_queues
            self.paces.add(request.task.name, seconds, request.worker_pid, together=False, is_long=is_long)

    def _next_group(self, pool: Any) -> list[list[Any]]:
        """The next ones for a process, in parts whose claims are taken together; none when nothing waits."""
        most = min(math.ceil(len(self._waiting) / self._shares(pool)), MOST)
        chosen: list[Any] = []
        parts: list[list[Any]] = []
        all_of_them, of_part = GroupSize(), GroupSize()
        while self._waiting and len(chosen) < most:
            request = self._waiting[0]
            pace = self.paces.of(request.task.name)
            goes_alone = request.goes_alone or not pace.is_short
            all_of_them.add(pace)
            if chosen and (goes_alone or all_of_them.expected > HANDED or hard_limit(request) != hard_limit(chosen[0])):
                break
            self._waiting.popleft()
            if self._is_revoked(request):
                continue
            of_part.add(pace)
            if not chosen or of_part.expected > TOGETHER or len(parts[-1]) == CLAIMED:
                parts.append([])
                of_part = GroupSize()
                of_part.add(pace)
            chosen.append(request)
            parts[-1].append(request)
            if goes_alone:
                break
        return parts

    def _shares(self, pool: Any) -> int:
        """Processes that what waits is for, as guided self-scheduling has it: this one, the free ones, and those that soon will be."""
        semaphore = self.consumer.controller.semaphore if pool.uses_semaphore else None
        processes, free = (
            (semaphore.initial_value, semaphore.value) if semaphore else (int(pool.limit), self._free() - 1)
        )
        soon = sum(not group.is_slow for group in self._groups)  # one of which may have just ended
        return max(1, min(processes, 1 + max(free, 0) + soon))

    def _is_revoked(self, request: Any) -> bool:
        """Whether it ends here."""
        try:
            return bool(request.revoked())
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not keep the others from running
            self._fail(request, error)
            return True

    def _fail(self, request: Any, error: Exception) -> None:
        """It cannot even be handed over: a dead letter of one that goes alone, as all do once they have come again."""
        if request.goes_alone:
            logger.error("a message cannot be handled: %s", request.id, exc_info=error)
            self.consumer.refuse(request.message, UndeliverableMessage(f"{type(error).__name__}: {error}"))
            state.task_ready(request)
        else:
            comes_again(request, error)

    # From the pool.

    def ended(self, group: JobGroup) -> None:
        """All of a group have ended, or are lost."""
        self._groups.discard(group)
        self.flush()

    def let_go(self, requests: Sequence[Any]) -> None:
        """Their messages are gone from Redis, or in other hands: make room for others, with nothing said to Redis."""
        if not requests:
            return
        requests[0].app.in_flight.forget(*(one.delivery["receipt"] for one in requests))
        for one in requests:
            one.make_room()

    def in_loop(self, call: Callable[[], None]) -> None:
        """Call from the thread of the loop: at once when this is the one, else soon."""
        self.consumer.app.loop_calls.in_loop(call)

    def later(self, call: Callable[[], None]) -> None:
        """Call from the thread of the loop in a moment."""
        self.consumer.hub.call_later(SOON, call)

    def look(self) -> None:
        """Do something about jobs that take longer than they should: others wait behind them."""
        if self.consumer.task_consumer is None:  # it connects
            return
        self._mark_slow()
        long_since = time.monotonic() - RETURN_AFTER
        slow = [group for group in self._groups if group.is_slow]
        if slow:
            self.consumer.app.in_flight.look()
            for group in slow:
                self.consumer.hub.call_later(LOOKED, group.look)
        if self._waiting and self._handed_at < long_since:
            self._give_back_surplus()
        if self._waiting:
            self.flush()

    def _mark_slow(self) -> None:
        """What has run for so long needs its process for itself, whatever was known of its task."""
        before = time.time() - RETURN_AFTER
        with suppress(RuntimeError):  # a thread of the pool begins one just now: the next look is soon
            for request in state.active_requests:
                delivery = getattr(request, "delivery", None)
                if delivery and request.time_start and request.time_start < before:
                    self._qos.mark_slow(delivery["receipt"])

    def _give_back_surplus(self) -> None:
        """Let others have what was read ahead, and read no more of it, unless slow ones have all processes: then none is read."""
        if self._qos.room_for_long > 0:
            self.paces.narrow()
        while self._waiting and self._waiting[-1].message.channel.qos.is_beyond_prefetch:
            request = self._waiting.pop()
            request.app.in_flight.give_back(request.delivery["receipt"])
            request.make_room()
            state.task_ready(request)
