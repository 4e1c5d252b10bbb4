"""Celery's result backend, extended: a job that reports progress has the state `PROGRESS` (R11).

It writes nothing for this: if Celery has no result, it reads the progress. The fields have our names, and also the names that
tools such as celery-progress read. If the result is not kept, the progress also says how the job or the batch has ended.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from typing import Any

from celery import states
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.exceptions import TaskRevokedError
from redis.exceptions import RedisError

from conventions.core import errors
from conventions.core.deadline import Deadline, current_deadline
from conventions.core.error_text import text_of
from conventions.core.errors import BrokerUnavailable, JobCancelled, JobFailed
from conventions.core.lease_timings import SETTLE_FOR
from conventions.core.redis_address import SOCKET_TIMEOUT, shown
from conventions.execution.application import Application, may_pass
from conventions.execution.follow_ups import StepsNotSent
from conventions.execution.unsent_step import UnsentStep
from conventions.library_internals.celery import listed
from conventions.progress.reporter import Progress
from conventions.storage.redis_connections import BoundedRetry, bound_sentinels, bounded

logger = logging.getLogger(__name__)

PROGRESS = "PROGRESS"
STORE_FOR = SETTLE_FOR  # seconds
PASSING = frozenset([states.STARTED, states.RETRY, states.REVOKED])  # what they say is in Redis or in SQL, too
ERRORS_BEFORE = "conventions.errors"  # the module of our errors in older releases


# Whether a chord hears of a part just now, and whether it could not send its body.
_told: ContextVar[str] = ContextVar("conventions_told", default="")
RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""


class _NotSent(BaseException):  # Celery fails the chord at each `Exception`
    """A server does not answer, or takes nothing, while a chord sends what follows it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Ours:
    """Reads the progress of a job that has no result. Retries to store a result for as long as a settle does."""

    app: Application
    client: Any
    chord_expires: Any
    get_key_for_group: Any

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

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Store the number of parts of a chord, before the parts are sent. Raises: BrokerUnavailable."""
        with self._for_a_send(group_id):
            super().set_chord_size(group_id, chord_size)  # type: ignore[misc]  # the other base class has it

    def apply_chord(self, *arguments: Any, **options: Any) -> None:
        """Store the data of a chord, before its parts are sent. Raises: BrokerUnavailable."""
        with self._for_a_send(str(arguments[0][0])):
            super().apply_chord(*arguments, **options)  # type: ignore[misc]  # the other base class has it

    @contextmanager
    def _for_a_send(self, group_id: str) -> Iterator[None]:
        with Deadline(self.app.settings.broker_timeout):
            try:
                yield
            except (RedisError, OSError, RuntimeError) as error:
                reason = error
                if isinstance(error, RuntimeError):  # Celery raises it when it cannot subscribe to the result
                    if not isinstance(error.__cause__, RedisError):
                        raise
                    reason = error.__cause__
                where = shown(self.app.store.url)
                text = f"not sent: Redis at {where}, which keeps results, does not answer for a chord: {reason}"
                raise BrokerUnavailable(text, ids=[group_id]) from reason

    def on_chord_part_return(self, request: Any, state: str, result: Any, **options: Any) -> None:
        """Tell a chord how one of its parts has ended; the last one sends its body, or its errbacks.

        Celery would take a server that does not answer then for a failure of the chord. And the last part of a process that has
        died comes again at once, finds that the dead process has the right to send the body, and Celery would acknowledge it.

        Raises:
            StepsNotSent: a server does not answer, or another process sends the body or has died with it. The part comes again.
        """
        tell = super().on_chord_part_return  # type: ignore[misc]  # the other base class has it
        group = request.group
        if not group or not hasattr(self.app.tasks.get(request.task), "arguments"):  # a function would run again
            tell(request, state, result, **options)
            return
        sender, size = self._sender_of(
            group
        )  # before this part counts: the sender was told of all, so also of this one
        token = _told.set("part")
        try:
            tell(request, state, result, **options)
        except _NotSent as not_sent:
            if size:  # Celery deletes it with a chord that has failed
                key = self.get_key_for_group(group, ".s")
                self.client.set(key, size, nx=True, ex=int(self.chord_expires or 0) or None)
            raise StepsNotSent(f"the body of the chord {group}: {text_of(not_sent.error)}", requeue=True) from None
        finally:
            _told.reset(token)
        if sender and self._sender_of(group)[0]:
            raise StepsNotSent(
                f"the body of the chord {group} is being sent by a process that may have died", requeue=True
            )

    def _sender_of(self, group: str) -> tuple[Any, Any]:
        """Which process has taken the sending of a chord's body, and has not ended it; and the number of parts."""
        with self.client.pipeline() as pipe:
            pipe.get(self.get_key_for_group(group, ".c"))
            pipe.get(self.get_key_for_group(group, ".s"))
            sender, size = pipe.execute()
        return sender if size and sender != b"done" else None, size

    def chord_error_from_stack(self, callback: Any, exc: Any = None) -> Any:
        """Fail a chord; not where it met only a server that does not answer."""
        met = sys.exc_info()[1]
        if _told.get() and isinstance(met, Exception) and may_pass(self.app, met):
            _told.set("not sent")
            raise _NotSent(met)
        return super().chord_error_from_stack(callback, exc)  # type: ignore[misc]  # the other base class has it

    @property
    def _chord_cleanup_script(self) -> Any:
        """What ends the sending of a body: all of the chord goes, or only the right to send it, where it is not sent."""
        if _told.get() == "not sent":
            return self.client.register_script(RELEASE)
        return super()._chord_cleanup_script  # type: ignore[misc]  # the other base class has it

    def mark_as_revoked(
        self,
        task_id: str,
        reason: Any = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Tell those who wait for a message that ends without having run. Celery would not tell those who wait for the rest of its chain."""
        super().mark_as_revoked(task_id, reason, request, store_result, state)  # type: ignore[misc]  # the other base class has it
        if request and request.chain:
            self._fail_chain(request.chain, TaskRevokedError(reason), state=state)  # type: ignore[attr-defined]

    def _call_task_errbacks(self, request: Any, exc: Any, traceback: Any) -> None:
        """Call or send each errback. One that can never be sent becomes a dead letter; Celery would send none of the others.

        Raises:
            Exception: a server does not answer.
        """
        for step in listed(request.errbacks):  # Celery takes a single one for a list of its keys
            alone = copy(request)
            alone.errbacks = [step]
            try:
                super()._call_task_errbacks(alone, exc, traceback)  # type: ignore[misc]  # the other base class has it
            except Exception as error:
                if may_pass(self.app, error):
                    if _told.get():
                        raise _NotSent(error) from error
                    raise
                how = {"parent_id": request.id, "root_id": request.root_id or request.id}
                UnsentStep.of(self.app, step, (request.id,), **how).refuse(error)

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
        """Store a state. One that cannot be stored ends no job, unless it is the job's own end.

        Celery would take a job for failed whose start, or whose retry, it could not note.

        Raises:
            RedisError, OSError: Redis did not accept a success or a failure.
        """
        try:
            return super().store_result(task_id, result, state, *args, **options)  # type: ignore[misc]  # the other base class has it
        except Exception as error:
            if state not in PASSING:
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
                    raise StepsNotSent(text_of(error), requeue=True) from error
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
