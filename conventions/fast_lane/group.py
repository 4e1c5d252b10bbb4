"""`JobGroup`: the main process's view of a group, while a process of the pool runs it.

Each member stays a request of its own: for events, `inspect`, `revoke`, and every outcome.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker import state
from redis.exceptions import RedisError

from conventions.execution.process_ends import has_ended
from conventions.fast_lane.call_job import Ended
from conventions.fast_lane.group_size import RETURN_AFTER
from conventions.fast_lane.run_group import run_group
from conventions.fast_lane.short_request import handed_over
from conventions.library_internals.billiard import error_of
from conventions.worker.request import Request

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """What a group needs of the lane."""

    def in_loop(self, call: Callable[[], None]) -> None:
        """Call this in the thread of the worker's loop."""

    def note_runtime(self, request: Request, seconds: float | None, process: int | None) -> None:
        """A job has ended. `seconds`: its run time, if known. `process`: the id of the process that ran it."""

    def let_go(self, requests: Sequence[Request]) -> None:
        """Forget these requests: this worker no longer holds their messages."""

    def ended(self, group: "JobGroup") -> None:
        """All members of a group have ended."""

    def later(self, call: Callable[[], None]) -> None:
        """Call this in the thread of the worker's loop, a moment later."""


class JobGroup:
    """Requests that the pool gets as one job. The pool may call back from a thread of its own.

    Args:
        lane: is told when members end.
        parts: the requests, in the order in which they run. The claims of one part are asked for in one call. All have the same
            hard limit.
        hostname: the name of the worker.

    Attributes:
        begun_at: when a process took the group, on the monotonic clock.
    """

    def __init__(self, lane: Listener, parts: Sequence[Sequence[Request]], hostname: str) -> None:
        self._lane, self._parts, self._hostname = lane, parts, hostname
        self._requests = [request for part in parts for request in part]
        self._open = {request.delivery["receipt"]: request for request in self._requests}
        for request in self._requests:
            request.group = self
        self._gone: set[str] = set()  # receipts that this worker no longer holds
        self._asks = True  # false after Redis did not answer
        self.begun_at: float | None = None
        self._pid: int | None = None

    @property
    def is_slow(self) -> bool:
        """Whether the group runs for longer than a group of short jobs may."""
        return self.begun_at is not None and self.begun_at < time.monotonic() - RETURN_AFTER

    @property
    def is_single(self) -> bool:
        """Whether it has one member."""
        return len(self._requests) == 1

    def start(self, pool: Any) -> None:
        """Give the group to the pool."""
        hard = hard_limit(self._requests[0])
        pool.apply_async(
            run_group,
            args=([[handed_over(request) for request in part] for part in self._parts], self._hostname),
            accept_callback=self._on_accepted,
            timeout_callback=self._on_timeout,
            callback=self._on_ended,
            error_callback=self._on_failed,
            # A member waits at most RETURN_AFTER behind another one.
            timeout=hard + (0 if self.is_single else RETURN_AFTER) if hard else None,
            correlation_id=self._requests[0].id,
        )

    def _on_accepted(self, pid: int, time_accepted: float) -> None:
        self.begun_at, self._pid = time_accepted, pid
        self._requests[0].app.in_flight.begin_all([request.start() for request in self._requests])
        for request in self._requests:
            request.accept(pid, time_accepted)

    def _on_ended(self, ended: list[tuple[Any, ...] | None]) -> None:
        if isinstance(ended, list):
            self._lane.in_loop(lambda: self._end([None if one is None else Ended(*one) for one in ended]))
        else:  # a pool of threads reports a `SystemExit` this way
            self._on_failed(ended)

    def _end(self, ended: Sequence[Ended | None]) -> None:
        done = []
        for request, one in zip(self._requests, ended, strict=True):
            request.group = None
            if self._open.pop(request.delivery["receipt"], None) is None:
                continue
            try:
                if one is None or one.how == "done":
                    done.append(request)
                if one is None:
                    state.task_ready(request)
                else:
                    self._end_one(request, one)
            except Exception as error:  # noqa: BLE001  # an error of one member must not affect the others
                comes_again(request, error)
        self._let_go(done)
        self._lane.ended(self)

    def _end_one(self, request: Request, ended: Ended) -> None:
        self._lane.note_runtime(request, ended.runtime if ended.has_run else None, self._pid)
        if ended.how == "raised":
            request.on_failure(ended.value)
        elif ended.how == "failed":
            request.on_success((1, ended.value, ended.runtime))
        elif ended.how == "succeeded":
            request.on_success((0, ended.value, ended.runtime))
        else:
            state.task_ready(request)  # Celery uses `successful` only to skip work that is done here
            request.acknowledged = True
            request.send_event("task-succeeded", result=ended.value, runtime=ended.runtime)

    def _on_failed(self, exc_info: Any) -> None:
        """The process has died, or could not begin. Members without a recorded outcome come again."""
        error = error_of(exc_info)
        if not isinstance(error, TimeLimitExceeded):  # the pool calls `_on_timeout` next
            self._lane.in_loop(lambda: self._lose(error))

    def _on_timeout(self, soft: bool, timeout: float) -> None:
        """A member is over its hard limit. The pool kills the process after this call. `LaneWatch` handles soft limits."""
        if soft:
            return
        if has_ended(self._pid):  # the pool has not noticed yet
            self._lose(WorkerLostError("its process ended before its time limit"))
            return
        running = self._running()
        if running is not None:
            self._open.pop(running.delivery["receipt"], None)
            running.on_timeout(False, hard_limit(running))
        self._lose(TimeLimitExceeded(timeout))

    def _lose(self, error: BaseException) -> None:
        self._asks = True
        for receipt, request in list(self._open.items()):
            del self._open[receipt]
            request.group = None
            if receipt not in self._gone:
                request.make_room()
            if request.has_ended_otherwise:  # it was revoked, and its outcome is recorded
                continue
            succeeded = self._has_succeeded(request)
            state.task_ready(request, successful=succeeded)
            if succeeded:
                request.app.in_flight.acknowledge(receipt)
            else:
                request.on_lost(error)
        self._lane.ended(self)

    def _has_succeeded(self, request: Request) -> bool:
        if not self._asks:
            return False
        try:
            succeeded = bool(request.app.claims.is_done(request.claim, request.id))
        except RedisError:  # ask no more: the loop must not wait once per member
            self._asks = False
            return False
        if succeeded:
            request.send_event("task-succeeded", result=None, runtime=None)
        return succeeded

    def _running(self) -> Request | None:
        """The member that runs now, according to Redis; the only one in any case. `None` if none does, or Redis does not answer."""
        if self.is_single:
            return next(iter(self._open.values()), None)
        for request in self._open.values():
            try:
                if request.app.claims.runs(request.claim, request.token):
                    return request
            except RedisError:
                return None
        return None

    def postpones(self, request: Request, pool: Any, signal: Any) -> bool:
        """Whether `terminate` must wait: it may end the process only while this member is the one that runs."""
        if request.delivery["receipt"] not in self._open:  # it has ended
            return True
        try:
            if request.app.claims.runs(request.claim, request.token):
                return False
        except RedisError:
            return False
        self._lane.later(lambda: request.terminate(pool, signal) if request.group is self else None)
        return True

    def look(self) -> None:
        """Let go of members that this worker no longer holds: they have ended, or were given back behind a long job."""
        gone = [
            one
            for receipt, one in self._open.items()
            if receipt not in self._gone and not one.app.in_flight.holds(receipt)
        ]
        with suppress(RedisError):
            for request in gone:
                if not request.app.claims.is_done(request.claim, request.id):
                    del self._open[request.delivery["receipt"]]
                    request.group = None
                    state.task_ready(request)
        self._let_go(gone)

    def _let_go(self, requests: Sequence[Request]) -> None:
        new = [one for one in requests if one.delivery["receipt"] not in self._gone]
        self._gone.update(one.delivery["receipt"] for one in new)
        self._lane.let_go(new)


def comes_again(request: Request, error: Exception) -> None:
    """After a fault of the platform: return the message to its queue. The next worker handles it alone."""
    logger.error("a fault of the platform: %s comes again", request.id, exc_info=error)
    request.come_again(error)


def hard_limit(request: Request) -> float:
    """The hard limit of a request, in seconds; 0: none."""
    return float(request.time_limits[0] or request.task.time_limit or 0)
