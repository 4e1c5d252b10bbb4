"""Celery's result backend, extended: a job that reports progress has the state `PROGRESS` (R11).

It writes nothing for this: if Celery has no result, it reads the progress. The fields have our names, and also the names that
tools such as celery-progress read. If the result is not kept, the progress also says how the job or the batch has ended.
"""

import logging
import time
from typing import Any

from celery import states
from celery.backends.redis import RedisBackend, SentinelBackend
from redis.exceptions import RedisError

from conventions.core import errors
from conventions.core.deadline import current_deadline
from conventions.core.errors import JobCancelled, JobFailed
from conventions.core.lease_timings import SETTLE_FOR
from conventions.core.redis_address import SOCKET_TIMEOUT
from conventions.execution.application import may_pass
from conventions.execution.chord_parts import ChordParts, must_be_stored
from conventions.execution.follow_ups import StepsNotSent
from conventions.progress.reporter import Progress
from conventions.storage.redis_connections import BoundedRetry, bound_sentinels, bounded

logger = logging.getLogger(__name__)

PROGRESS = "PROGRESS"
STORE_FOR = SETTLE_FOR  # seconds
PASSING = frozenset([states.STARTED, states.RETRY, states.REVOKED])  # what they say is in Redis or in SQL, too
ERRORS_BEFORE = "conventions.errors"  # the module of our errors in older releases


class _Ours(ChordParts):
    """Reads the progress of a job that has no result. Retries to store a result for as long as a settle does."""

    def _get_pool(self, **parameters: Any) -> Any:
        pool = super()._get_pool(**parameters)  # type: ignore[misc]  # the other base class has it
        pool.connection_class = bounded(pool.connection_class)
        if manager := getattr(pool, "sentinel_manager", None):
            bound_sentinels(manager, BoundedRetry(retries=0, patience=SOCKET_TIMEOUT))
        return pool

    def ensure(self, *arguments: Any, **policy: Any) -> Any:
        """Retry as Celery does. Within a send, try once: the send retries by itself."""
        once = {"max_retries": 0} if current_deadline() is not None else {}
        return super().ensure(*arguments, **policy | once)  # type: ignore[misc]  # the other base class has it

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:
        """The result that Celery keeps for a task; if there is none, its progress."""
        meta: dict[str, Any] = super().get_task_meta(task_id, cache=cache)  # type: ignore[misc]  # the other base class has it
        if meta["status"] != states.PENDING:
            return meta
        progress = Progress.of(task_id, self.app.store)
        if not progress.started_at:
            return meta
        return meta | {"task_id": task_id, "traceback": None, "children": []} | _state_of(progress)

    def exception_to_python(self, exc: Any) -> Any:
        """The error of a stored result, also if an older release stored the error's former module."""
        if isinstance(exc, dict) and exc.get("exc_module") == ERRORS_BEFORE:
            exc = exc | {"exc_module": errors.__name__}
        return super().exception_to_python(exc)  # type: ignore[misc]  # the other base class has it

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **options: Any) -> Any:
        """Store a state. One that cannot be stored ends no job, unless it is the job's own end, or within `tell_of_end`.

        Celery would take a job for failed whose start, or whose retry, it could not note.

        Raises:
            RedisError, OSError: Redis did not accept a success or a failure.
        """
        try:
            return super().store_result(task_id, result, state, *args, **options)
        except Exception as error:
            if state not in PASSING or must_be_stored.get():
                raise
            logger.warning("state %s not stored: id=%s: %s: %s", state, task_id, type(error).__name__, error)
            return result

    def mark_as_done(self, task_id: str, *args: Any, **options: Any) -> Any:
        """Store the success of a job, for its waiting callers. It retries as long as a settle does (protocol 4).

        Celery would give up at once and report a failure.

        Raises:
            StepsNotSent: Redis did not accept it in all that time. The message comes again.
            RedisError: it never will.
        """
        deadline = time.monotonic() + STORE_FOR
        while True:
            try:
                return super().mark_as_done(task_id, *args, **options)  # type: ignore[misc]  # the other base class has it
            except (RedisError, OSError) as error:
                if not may_pass(self.app, error):
                    raise
                if time.monotonic() > deadline:  # Celery would tell its errbacks that it has failed
                    raise StepsNotSent.of(error) from error
                logger.warning("result not stored yet: id=%s: %s: %s", task_id, type(error).__name__, error)
                time.sleep(1)


def _state_of(progress: Progress) -> dict[str, Any]:
    match progress.ended if progress.ignored else "":  # a kept result will be stored in a moment
        case "done":
            return {"status": states.SUCCESS, "result": None}
        case "dead":
            return {"status": states.FAILURE, "result": JobFailed(f"{progress.id}: its dead letter says how")}
        case "cancelled":
            return {"status": states.REVOKED, "result": JobCancelled(f"{progress.id} was cancelled")}
        case _:
            return {"status": PROGRESS, "result": described(progress)}


def described(progress: Progress) -> dict[str, Any]:
    """A progress as JSON. `current` and `description` are the names that celery-progress reads."""
    names = ("done", "failed", "total", "percent", "note", "rate", "eta", "stalled")
    fields = {name: getattr(progress, name) for name in names}
    return fields | {"current": progress.done, "description": progress.note}


class Backend(_Ours, RedisBackend):
    """Results in Redis."""


class SentinelResults(_Ours, SentinelBackend):
    """Results in Redis, on the master that Sentinel names."""
