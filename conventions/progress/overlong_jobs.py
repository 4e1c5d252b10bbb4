"""Counts, for each task, the jobs that run too long. A job should be one clear thing, done within a minute (R5)."""

import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from celery.exceptions import SoftTimeLimitExceeded
from redis.exceptions import RedisError

from conventions.core.time_units import milliseconds
from conventions.storage.redis_store import Store

logger = logging.getLogger(__name__)

HEAD_START = 0.2  # seconds: Celery starts to measure the soft limit at most this much before us
SHORTEST = 0.05  # seconds; a faster job is never too long, whatever its limits are
KEEP = timedelta(days=30)  # how long a count is kept after the task's last such job

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
    """The count of overlong jobs of each task."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, task: str, message_id: str, seconds: float) -> int:
        """Count one job. Returns the count of its task. Raises: RedisError."""
        keep = milliseconds(KEEP)
        return int(self._store.run("overlong_job", [task, message_id, round(seconds, 3), round(time.time(), 3), keep]))

    def listing(self) -> list[TooLong]:
        """The tasks that should be split, the largest count first. Expired counts are dropped."""
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
            except (LookupError, ValueError):  # another program wrote it; the other tasks are still shown
                logger.exception("what Redis has of jobs of %r that take too long cannot be read", raw)
        return sorted(found, key=lambda one: (-one.count, one.task))


class Counting(Protocol):
    """What is used of the application here."""

    @property
    def granularity(self) -> OverlongJobs:
        """Counts the jobs."""


class TimedTask(Protocol):
    """What is used of a task here."""

    @property
    def name(self) -> str:
        """Under which it is registered."""

    @property
    def app(self) -> Counting:
        """The application that it belongs to."""

    @property
    def request(self) -> Any:
        """Celery's: the message that this thread runs."""

    @property
    def soft_time_limit(self) -> float | None:
        """Seconds after which a job is asked to stop."""

    @property
    def split_after(self) -> float | None:
        """Seconds; a longer job should be split. `None`: it may take long."""


class watching:  # noqa: N801  # used like a function
    """Count the job of the block if it runs too long: beyond its soft limit or its class's `split_after`."""

    def __init__(self, task: TimedTask, message_id: str) -> None:
        self._task, self._id = task, message_id

    def __enter__(self) -> None:
        """Note the start."""
        self._begun = time.monotonic()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Count the job if it was too long."""
        seconds = time.monotonic() - self._begun
        if seconds < SHORTEST and error is None:
            return
        task, limit = self._task, self._task.split_after
        soft = (task.request.timelimit or (None, None))[1] or task.soft_time_limit
        # The job may have caught the exception of the soft limit, so check the time, too.
        asked = isinstance(error, SoftTimeLimitExceeded) or (soft and seconds >= soft - HEAD_START)
        over = asked or (limit is not None and seconds >= limit)
        if over and not isinstance(error, SystemExit):  # the process ends; that is counted in another place
            note(task, self._id, seconds)


def note(task: TimedTask, message_id: str, seconds: float) -> None:
    """Count an overlong job and write it to the log. Never raises."""
    logger.warning("too long: id=%s task=%s: ran for %.0f s; %s", message_id, task.name, seconds, ADVICE)
    try:
        task.app.granularity.note(task.name, message_id, seconds)
    except RedisError as error:
        logger.warning("too long: id=%s: not counted: %s", message_id, error)
