"""`JobGroup`: messages that went to a process of the pool together, as the main process sees them.

Each of them stays a request of its own: for events, `inspect`, `revoke` and all that may become of it.
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
from conventions.fast_lane.group_size import RETURN_AFTER
from conventions.fast_lane.run_group import run_group
from conventions.fast_lane.short_request import handed_over
from conventions.fast_lane.trace import Ended
from conventions.library_internals.billiard import error_of

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Who hears of the end of a group."""

    def in_loop(self, call: Callable[[], None]) -> None:
        """Call from the thread of the worker's loop."""

    def note_runtime(self, task: str, seconds: float | None, process: int | None) -> None:
        """A job has ended in this process, after so many seconds, where they are known."""

    def let_go(self, requests: Sequence[Any]) -> None:
        """The messages of these are in other hands, or gone."""

    def ended(self, group: "JobGroup") -> None:
        """All of a group have ended."""

    def later(self, call: Callable[[], None]) -> None:
        """Call from that thread in a moment."""


class JobGroup:
    """Requests that are one job of the pool. What the pool calls may come from a thread of its own.

    Args:
        lane: hears of the end.
        parts: in the order in which they run; the claims of each are taken together. Their hard limits are the same.
        hostname: of the worker.

    Attributes:
        begun_at: when its process took it, on the monotonic clock.
    """

    def __init__(self, lane: Listener, parts: Sequence[Sequence[Any]], hostname: str) -> None:
        self._lane, self._parts, self._hostname = lane, parts, hostname
        self._requests = [request for part in parts for request in part]
        self._open = {request.delivery["receipt"]: request for request in self._requests}
        for request in self._requests:
            request.group = self
        self._gone: set[str] = set()
        self._asks = True  # Redis, while it answers
        self.begun_at: float | None = None
        self._pid: int | None = None

    @property
    def is_slow(self) -> bool:
        """Whether it takes longer than one of short jobs ever should."""
        return self.begun_at is not None and self.begun_at < time.monotonic() - RETURN_AFTER

    def start(self, pool: Any) -> None:
        """Hand them over."""
        hard = hard_limit(self._requests[0])
        pool.apply_async(
            run_group,
            args=([[handed_over(request) for request in part] for part in self._parts], self._hostname),
            accept_callback=self._on_accepted,
            timeout_callback=self._on_timeout,
            callback=self._on_ended,
            error_callback=self._on_failed,
            # None of them waits for longer than that behind another one.
            timeout=hard + RETURN_AFTER if hard else None,
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
        else:  # a pool of threads tells of a `SystemExit` this way
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
            except Exception as error:  # noqa: BLE001  # whatever it is, it must not touch the others
                comes_again(request, error)
        self._let_go(done)
        self._lane.ended(self)

    def _end_one(self, request: Any, ended: Ended) -> None:
        self._lane.note_runtime(request.task.name, ended.runtime, self._pid)
        if ended.how == "raised":
            request.on_failure(ended.value)
        elif ended.how == "failed":
            request.on_success((1, ended.value, ended.runtime))
        elif ended.how == "succeeded":
            request.on_success((0, ended.value, ended.runtime))
        else:
            state.task_ready(request)  # whether it was a success, Celery wants to know only to skip what it has done
            request.acknowledged = True
            request.send_event("task-succeeded", result=ended.value, runtime=ended.runtime)

    def _on_failed(self, exc_info: Any) -> None:
        """The process has died, or could not even begin: what it had not recorded comes again."""
        error = error_of(exc_info)
        if not isinstance(error, TimeLimitExceeded):  # of which the pool tells `_on_timeout` next
            self._lane.in_loop(lambda: self._lose(error))

    def _on_timeout(self, soft: bool, timeout: float) -> None:
        """One of them is beyond its hard limit, and its process is killed after this; soft ones are kept by `LaneWatch`."""
        if soft:
            return
        if has_ended(self._pid):  # the pool has not seen that yet
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
            if request.has_ended_otherwise:  # it was revoked, and told so
                continue
            succeeded = self._has_succeeded(request)
            state.task_ready(request, successful=succeeded)
            if succeeded:
                request.app.in_flight.acknowledge(receipt)
            else:
                request.on_lost(error)
        self._lane.ended(self)

    def _has_succeeded(self, request: Any) -> bool:
        if not self._asks:
            return False
        try:
            succeeded = bool(request.app.claims.is_done(request.claim, request.id))
        except RedisError:  # the loop must not wait for each of them
            self._asks = False
            return False
        if succeeded:
            request.send_event("task-succeeded", result=None, runtime=None)
        return succeeded

    def _running(self) -> Any:
        """The one that runs, as Redis knows; `None` where it does not answer."""
        for request in self._open.values():
            try:
                if request.app.claims.runs(request.claim, request.token):
                    return request
            except RedisError:
                return None
        return None

    def postpones(self, request: Any, pool: Any, signal: Any) -> bool:
        """Whether to end its process is put off until this is the one that runs there, or has ended."""
        if request.delivery["receipt"] not in self._open:  # it is not there
            return True
        try:
            if request.app.claims.runs(request.claim, request.token):
                return False
        except RedisError:
            return False
        self._lane.later(lambda: request.terminate(pool, signal) if request.group is self else None)
        return True

    def look(self) -> None:
        """Make room for others: what this process no longer holds has ended, or was given back behind a long job."""
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

    def _let_go(self, requests: Sequence[Any]) -> None:
        new = [one for one in requests if one.delivery["receipt"] not in self._gone]
        self._gone.update(one.delivery["receipt"] for one in new)
        self._lane.let_go(new)


def comes_again(request: Any, error: Exception) -> None:
    """A fault of the platform: its message goes back, to be handled the long way by whoever has it next."""
    logger.error("a fault of the platform: %s comes again", request.id, exc_info=error)
    request.come_again(error)


def hard_limit(request: Any) -> float:
    """Seconds after which its process is killed; 0: never."""
    return float(request.time_limits[0] or request.task.time_limit or 0)
