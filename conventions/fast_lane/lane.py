"""`Lane`: forms groups of short jobs, and gives each group to a process of the pool (protocol 12).

`fast_lane/door.py` puts requests here that Celery would give to the pool at once. When the worker has read its messages, the
lane gives a group to each free process. The size of a group depends on how long jobs take: see `RuntimeEstimates`.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import chain
from typing import Any

from celery.exceptions import TaskRevokedError
from celery.worker import state

from conventions.fast_lane.group import JobGroup, comes_again, hard_limit
from conventions.fast_lane.group_size import CLAIMED, HANDED, MOST, RETURN_AFTER, TOGETHER, GroupSize, RuntimeEstimates
from conventions.library_internals.celery_worker import future_of
from conventions.worker.request import PlainRequest
from conventions.worker.shutdown import stops

logger = logging.getLogger(__name__)

GROUPS = 3  # groups for each process: one runs, one waits, one is being read
SOON = 0.05  # seconds until a call of `later`
LOOKED = 0.2  # seconds until `InFlight.look` knows which messages other workers have


class Lane:
    """The requests of one worker that no process has yet. Only the thread of the worker's loop uses it."""

    def __init__(self) -> None:
        self.estimates = RuntimeEstimates()
        self.grouping: set[str] = set()  # names of tasks whose jobs may be in groups
        self._waiting: deque[PlainRequest] = deque()
        self._groups: set[JobGroup] = set()
        self._apart: list[Future[Any]] = []  # jobs outside groups that a pool of threads has not ended
        self._long_queues: Collection[str] = ()
        self._is_asking = False  # this lane waits for a free process
        self._is_flushing = False
        self._handed_at = 0.0  # when the pool last got jobs
        self.consumer: Any = None

    def attach(self, consumer: Any, long_queues: Collection[str] = ()) -> None:
        """Work for this consumer, in place of Celery's step from message to pool."""
        self.consumer, self._long_queues = consumer, long_queues
        self.clear()

    def clear(self) -> None:
        """Forget the requests that wait: their messages go back to their queues."""
        self._waiting.clear()
        self._is_asking = False
        # The pool drops groups that have not begun.
        self._groups = {group for group in self._groups if group.begun_at is not None}

    def review(self) -> None:
        """Return the requests that wait of what people have paused."""
        self._waiting = deque(one for one in self._waiting if not self._is_paused(one))

    # From the messages to the pool.

    def note_runtime(self, request: PlainRequest, seconds: float | None, process: int | None) -> None:
        """Count a job of a group that has ended in this process."""
        if seconds is not None:
            is_long = request.delivery["queue"] in self._long_queues
            self.estimates.add(request.task.name, seconds, process, together=True, is_long=is_long)

    def room(self, processes: float) -> int:
        """How many short messages to read for so many processes: `GROUPS` groups for each. 0 if jobs are not short."""
        mix = self.estimates.mix
        return math.floor(processes * GROUPS * min(mix.fitting(HANDED), MOST)) if mix.is_short else 0

    def starves(self) -> bool:
        """Whether a process is free and no request waits."""
        pool = self.consumer.pool
        free = self.consumer.controller.semaphore.value if pool.uses_semaphore else self._free()
        return not self._waiting and free > 0

    @property
    def knows_short(self) -> bool:
        """Whether any task in `grouping` is known to be short."""
        return any(map(self.estimates.is_short, self.grouping))

    def take(self, request: PlainRequest) -> None:
        """Keep a request until a process is free."""
        self._waiting.append(request)

    def flush(self) -> None:
        """Give waiting requests to free processes. Called after each read of messages."""
        if self._is_flushing:  # a solo pool runs the job within this call, and the end of the job calls this again
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
        """How many threads are free. With processes, Celery counts them, and this is 1."""
        pool = self.consumer.pool
        if pool.uses_semaphore:
            return 1
        self._apart = [one for one in self._apart if not one.done()]
        return int(pool.limit) - len(self._groups) - len(self._apart)

    @property
    def _qos(self) -> Any:
        return self.consumer.task_consumer.channel.qos

    def execute_using_pool(self, pool: Any, **_: Any) -> None:
        """Give the next group to a process that is free. Raises: TaskRevokedError when no request waits any more."""
        self._is_asking = False
        self._handed_at = time.monotonic()
        parts = self._next_group(pool)
        if not parts:
            raise TaskRevokedError
        first = parts[0][0]
        is_single = len(parts) == len(parts[0]) == 1
        if first.goes_alone or (
            is_single and pool.uses_semaphore and not self.estimates.measures_next(first.task.name)
        ):
            try:
                self._start_alone(first, pool)
            except TaskRevokedError:
                raise
            except Exception as error:  # an error of one request must not end the worker
                self._fail(first, error)
                raise TaskRevokedError from error
        else:
            self._start_group(parts, pool)
        self.flush()

    def _start_group(self, parts: list[list[PlainRequest]], pool: Any) -> None:
        group = JobGroup(self, parts, self.consumer.hostname)
        self._groups.add(group)
        try:
            group.start(pool)
        except Exception as error:
            self._groups.discard(group)
            for request in chain.from_iterable(parts):
                comes_again(request, error)
            raise TaskRevokedError from error

    def _start_alone(self, request: PlainRequest, pool: Any) -> None:
        original = request.on_success  # Celery makes a request class for each task

        def on_success(result: Any, **options: Any) -> None:
            del request.on_success
            if not isinstance(result, tuple):  # a pool of threads, or solo, reports a `SystemExit` this way
                self.in_loop(lambda: request.on_exit(result.exception))
                return
            failed, _, runtime = result
            seconds = time.time() - request.time_start if failed else runtime
            original(result, **options)
            self.in_loop(lambda: self._note_alone(request, seconds))

        request.on_success = on_success
        future = future_of(request.execute_using_pool(pool))
        if future is not None:
            self._apart.append(future)
            future.add_done_callback(lambda _: self.in_loop(self.flush))

    def _note_alone(self, request: PlainRequest, seconds: float | None) -> None:
        if seconds is not None:
            is_long = request.delivery["queue"] in self._long_queues
            self.estimates.add(request.task.name, seconds, request.worker_pid, together=False, is_long=is_long)

    def _next_group(self, pool: Any) -> list[list[PlainRequest]]:
        """The next group for a process, in parts; the claims of a part are asked for in one call. Empty when no request waits."""
        most = min(math.ceil(len(self._waiting) / self._shares(pool)), MOST)
        chosen: list[PlainRequest] = []
        parts: list[list[PlainRequest]] = []
        all_of_them, of_part = GroupSize(), GroupSize()
        while self._waiting and len(chosen) < most:
            request = self._waiting[0]
            estimate = self.estimates.of(request.task.name)
            goes_alone = request.goes_alone or not estimate.is_short
            all_of_them.add(estimate)
            if chosen and (goes_alone or all_of_them.expected > HANDED or hard_limit(request) != hard_limit(chosen[0])):
                break
            self._waiting.popleft()
            if self._is_paused(request) or self._is_revoked(request):
                continue
            of_part.add(estimate)
            if not chosen or of_part.expected > TOGETHER or len(parts[-1]) == CLAIMED:
                parts.append([])
                of_part = GroupSize()
                of_part.add(estimate)
            chosen.append(request)
            parts[-1].append(request)
            if goes_alone:
                break
        return parts

    def _shares(self, pool: Any) -> int:
        """How many processes share the waiting requests: this one, the free ones, and those that will be free soon (guided self-scheduling)."""
        semaphore = self.consumer.controller.semaphore if pool.uses_semaphore else None
        processes, free = (
            (semaphore.initial_value, semaphore.value) if semaphore else (int(pool.limit), self._free() - 1)
        )
        soon = sum(not group.is_slow for group in self._groups)  # one of them may have ended just now
        return max(1, min(processes, 1 + max(free, 0) + soon))

    def _is_paused(self, request: PlainRequest) -> bool:
        """Whether a request is back in its queue, since people have paused it."""
        return bool(self.consumer.pauses.returns(request))

    def _is_revoked(self, request: PlainRequest) -> bool:
        """Whether a request was revoked, or fails here. Then it has ended."""
        try:
            return bool(request.revoked())
        except Exception as error:  # noqa: BLE001  # an error of one request must not stop the others
            self._fail(request, error)
            return True

    def _fail(self, request: PlainRequest, error: Exception) -> None:
        """A request cannot be given to the pool. One that goes alone becomes a dead letter; another one comes again, and goes alone then."""
        if request.goes_alone:
            self.consumer.end_unready(request, error)
        else:
            comes_again(request, error)

    # From the pool.

    def ended(self, group: JobGroup) -> None:
        """All members of a group have ended, or are lost."""
        self._groups.discard(group)
        self.flush()

    def let_go(self, requests: Sequence[PlainRequest]) -> None:
        """Forget messages that are gone from Redis or that another worker has. Redis is not told. Others may be read in their place."""
        if not requests:
            return
        requests[0].app.in_flight.forget(*(one.delivery["receipt"] for one in requests))
        for one in requests:
            one.make_room()

    def in_loop(self, call: Callable[[], None]) -> None:
        """Call this in the thread of the loop: at once if this is that thread, else soon."""
        self.consumer.app.loop_calls.in_loop(call)

    def later(self, call: Callable[[], None]) -> None:
        """Call this in the thread of the loop, a moment later."""
        self.consumer.hub.call_later(SOON, call)

    def look(self) -> None:
        """Look for jobs that take too long, and help those that wait behind them. Nobody waits behind a job that is the only one of its group."""
        if self.consumer.task_consumer is None:  # the worker is connecting
            return
        self._mark_slow()
        long_since = time.monotonic() - RETURN_AFTER
        slow = [group for group in self._groups if group.is_slow and not group.is_single]
        if slow:
            self.consumer.app.in_flight.look()
            for group in slow:
                self.consumer.hub.call_later(LOOKED, group.look)
        if self._waiting and self._handed_at < long_since:
            self._give_back_surplus()
        if self._waiting:
            self.flush()

    def _mark_slow(self) -> None:
        """Mark jobs that run for longer than `RETURN_AFTER`: each of them needs a process of its own."""
        before = time.time() - RETURN_AFTER
        with suppress(RuntimeError):  # a thread of the pool begins a job just now; the next look is soon
            for request in state.active_requests:
                delivery = getattr(request, "delivery", None)
                if delivery and request.time_start and request.time_start < before:
                    self._qos.mark_slow(delivery["receipt"])

    def _give_back_surplus(self) -> None:
        """Return what was read ahead, so that other workers can have it. Read less ahead, unless slow jobs have all processes anyway."""
        if self._qos.room_for_long > 0:
            self.estimates.narrow()
        while self._waiting and self._waiting[-1].message.channel.qos.is_beyond_prefetch:
            request = self._waiting.pop()
            request.app.in_flight.give_back(request.delivery["receipt"])
            request.make_room()
            state.task_ready(request)
