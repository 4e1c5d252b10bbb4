"""One job is one clear thing, done within a minute: jobs that are not are counted by task, and shown (R5)."""

import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from redis.exceptions import RedisError

from conventions.core.units import milliseconds
from conventions.storage.redis_store import Store

logger = logging.getLogger(__name__)

HEAD_START = 0.2  # seconds at the most by which the clock of a soft limit began before ours
SHORTEST = 0.05  # seconds of a job that is short whatever its limits are
KEEP = timedelta(days=30)  # after the last one of a task

ADVICE = (
    "split it: one message for each item by enqueue_many, a BatchTask for many items, or a LongRunningTask that reports its "
    "progress"
)


@dataclass(frozen=True, slots=True)
class TooLong:
    """Jobs of one task that ran too long. Times are seconds; `last_at` is since the epoch."""

    task: str
    count: int
    longest: float
    last_at: float
    last_id: str


class OverlongJobs:
    """Which tasks have jobs that ran too long."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, task: str, message_id: str, seconds: float) -> int:
        """Count one, and return how many there were of its task. Raises: RedisError."""
        keep = milliseconds(KEEP)
        return int(self._store.run("too_long", [task, message_id, round(seconds, 3), round(time.time(), 3), keep]))

    def listing(self) -> list[TooLong]:
        """The tasks that should be split, the one with most such jobs first; forgotten ones are dropped."""
        names: Any = self._store.redis.smembers(self._store.key("too_long"))
        found = []
        for raw in sorted(names):
            fields: Any = self._store.redis.hgetall(self._store.key("too_long", raw.decode(errors="backslashreplace")))
            if not fields:
                self._store.redis.srem(self._store.key("too_long"), raw)
                continue
            try:
                longest, at = float(fields[b"longest"]), float(fields[b"last_at"])
                found.append(TooLong(raw.decode(), int(fields[b"count"]), longest, at, fields[b"last_id"].decode()))
            except (LookupError, ValueError):  # somebody else wrote it: it keeps no other from being shown
                logger.exception("what Redis has of jobs of %r that take too long cannot be read", raw)
        return sorted(found, key=lambda one: (-one.count, one.task))


class watching:  # noqa: N801  # used like a function
    """Count the job that runs in the block when it is too long: its soft limit, or what its class allows, is over."""

    def __init__(self, task: Any, message_id: str) -> None:
        self._task, self._id = task, message_id

    def __enter__(self) -> None:
        """It begins."""
        self._begun = time.monotonic()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """It has ended."""
        seconds = time.monotonic() - self._begun
        if seconds < SHORTEST and error is None:
            return
        task, limit = self._task, self._task.split_after
        soft = (task.request.timelimit or (None, None))[1] or task.soft_time_limit
        # A job may have caught the exception.
        asked = isinstance(error, SoftTimeLimitExceeded) or (soft and seconds >= soft - HEAD_START)
        over = asked or (limit is not None and seconds >= limit)
        if over and not isinstance(error, SystemExit):  # that is the end of its process, which others count
            note(task, self._id, seconds)


def note(task: Any, message_id: str, seconds: float) -> None:
    """Count a job that ran too long, and say so in the log. Raises nothing."""
    logger.warning("too long: id=%s task=%s: ran for %.0f s; %s", message_id, task.name, seconds, ADVICE)
    try:
        task.app.granularity.note(task.name, message_id, seconds)
    except RedisError as error:
        logger.warning("too long: id=%s: not counted: %s", message_id, error)
