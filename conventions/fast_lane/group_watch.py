"""`LaneWatch`: watches groups while they run. It handles soft time limits, and jobs that take longer than expected."""

import functools
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from redis.exceptions import RedisError

from conventions.execution.soft_time_limit import soft_limit
from conventions.fast_lane.group_member import GroupMember
from conventions.fast_lane.group_size import RETURN_AFTER

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.1  # seconds
IDLE_LOOKS = 50  # looks without a group before the thread sleeps: waking it costs as much as a short job


class Watched(Protocol):
    """What the watch needs of a group that runs.

    Attributes:
        begun_at: when the first member began, on the monotonic clock.
        running: the member that runs now.
        running_since: when it began, on the monotonic clock.
    """

    begun_at: float | None
    running: GroupMember | None
    running_since: float

    def give_back_waiting(self) -> int:
        """Return the members that have not begun to their queues. Returns how many. Raises: RedisError."""

    def settle_recorded(self) -> None:
        """Settle what has ended with the whole script. Raises: RedisError."""


class LaneWatch:
    """One thread for all groups of a process. The first group starts it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._groups: set[Watched] = set()
        self._thread: threading.Thread | None = None
        self._sleeps = False
        self._warned: Any = None  # the job that got the signal of its soft limit
        self._in_main: Watched | None = None
        self._on_soft: Any = None  # the pool's handler

    @contextmanager
    def over(self, group: Watched) -> Iterator[None]:
        """Watch a group while the block runs."""
        with self._changed:
            self._groups.add(group)
            if self._thread is None or not self._thread.is_alive():
                # Daemon: it must not keep a process from ending.
                self._thread = threading.Thread(target=self._run, name="lane", daemon=True)
                self._thread.start()
            elif self._sleeps:
                self._changed.notify()
        in_main = threading.current_thread() is threading.main_thread()
        if in_main:
            self._take_soft_limits()
            self._in_main = group
        try:
            yield
        finally:
            if in_main:
                self._in_main = None
            with self._changed:
                self._groups.discard(group)

    def _take_soft_limits(self) -> None:
        """Let the pool's signal reach a job of a group only while that job runs."""
        soft_limit.install()
        handler = signal.getsignal(signal.SIGUSR1)
        if callable(handler) and handler != self._on_signal:
            self._on_soft = handler
            signal.signal(signal.SIGUSR1, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        group = self._in_main
        if group is None or (group.running is not None and group.running is self._warned):
            self._on_soft(number, frame)

    def _run(self) -> None:
        idle = 0
        while True:
            time.sleep(LOOK_EVERY)
            with self._changed:
                groups = list(self._groups)
                idle = 0 if groups else idle + 1
                if idle > IDLE_LOOKS:
                    self._sleeps = True
                    self._changed.wait()
                    self._sleeps = False
            for group in groups:
                try:
                    self._look(group, time.monotonic())
                except RedisError as error:
                    logger.warning("a group's jobs that wait are not returned: %s", error)
                except Exception:  # the thread must go on: it handles the time limits
                    logger.exception("a fault of the platform")

    def _look(self, group: Watched, now: float) -> None:
        self._keep_soft_limit(group, now)  # before the calls that need the server
        if group.begun_at is not None and now - group.begun_at > RETURN_AFTER:
            if returned := group.give_back_waiting():
                logger.info("a job of a group takes long: %d that waited behind it are back in their queues", returned)
            group.settle_recorded()

    def _keep_soft_limit(self, group: Watched, now: float) -> None:
        member, since = group.running, group.running_since
        if member is None or member is self._warned or group is not self._in_main or self._on_soft is None:
            return
        limit = (member.request.get("timelimit") or (None, None))[1] or member.task.soft_time_limit
        if limit and now - since >= limit:
            self._warned = member
            logger.warning("Soft time limit (%gs) exceeded for %s[%s]", limit, member.task.name, member.id)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


@functools.cache
def lane_watch() -> LaneWatch:
    """The watch of this process."""
    return LaneWatch()
