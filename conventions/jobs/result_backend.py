"""Celery's result backend, extended: the state of a job is true, also where its result is not kept.

It writes nothing for this: if Celery has no result, it looks what became of the job. A job that reports progress has the state `PROGRESS`
(R11). The fields of that have our names, and also the names that tools such as celery-progress read.
"""

import logging
import time
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from celery import states
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.exceptions import TaskRevokedError
from redis.exceptions import RedisError

from conventions.core import errors
from conventions.core.deadline import current_deadline
from conventions.core.errors import CannotOpen, JobCancelled, JobFailed
from conventions.core.lease_timings import SETTLE_FOR
from conventions.core.redis_address import SOCKET_TIMEOUT
from conventions.core.sealed_mark import is_sealed_text
from conventions.execution.application import Application, may_pass
from conventions.execution.chord_parts import ChordParts, must_be_stored
from conventions.execution.follow_ups import StepsNotSent
from conventions.execution.sealed_parts import is_sealed_request, opened_part, sealed_part
from conventions.jobs.facts import ENDED, Facts, State
from conventions.jobs.gather_facts import Question, look, sql_errors
from conventions.progress.reporter import Progress
from conventions.sealing.shown_to_people import is_closed
from conventions.storage.redis_connections import BoundedRetry, bound_sentinels, bounded

logger = logging.getLogger(__name__)

PROGRESS = "PROGRESS"
STORE_FOR = SETTLE_FOR  # seconds
UNSEEN = 3.0  # seconds after its end in which a job's result may be stored, where nobody can ask whether its message is there
LEFT_ALONE = 30.0  # seconds in which SQL is not asked again after it did not answer, since each try may take 5
IN_CELERY: dict[State, str] = {
    "running": states.STARTED,
    "retrying": states.RETRY,
    "succeeded": states.SUCCESS,
    "duplicate": states.SUCCESS,
    "partly failed": states.SUCCESS,
    "dead": states.FAILURE,
    "discarded": states.FAILURE,
    "lost": states.FAILURE,
    "cancelled": states.REVOKED,
    "revoked": states.REVOKED,
    "expired": states.REVOKED,
    "purged": states.REVOKED,
}
CELERYS_OWN = ("revoked", "expired")  # which Celery itself stores where it keeps the result
PASSING = frozenset([states.STARTED, states.RETRY, states.REVOKED])  # what they say is in Redis or in SQL, too
ERRORS_BEFORE = "conventions.errors"  # the module of our errors in older releases

_left_alone: WeakKeyDictionary[Application, float] = WeakKeyDictionary()  # until when, on the monotonic clock


class _Ours(ChordParts):
    """Reads the state of a job that has no result. Retries to store a result for as long as a settle does."""

    result_consumer: Any  # Celery's

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
        """The result that Celery keeps for a task; if there is none, what became of the job.

        Raises:
            RedisError: Redis does not answer.
        """
        meta: dict[str, Any] = super().get_task_meta(task_id, cache=cache)  # type: ignore[misc]  # the other base class has it
        if meta["status"] != states.PENDING:
            return _of_that_job(task_id, meta)
        facts = self._look(task_id)
        if facts.state in ENDED:
            if self._may_be_stored(facts):
                facts = replace(facts, state="running")
            else:
                meta = super().get_task_meta(task_id, cache=cache)  # type: ignore[misc]  # the same
                if meta["status"] != states.PENDING:
                    return _of_that_job(task_id, meta)
        return meta | {"task_id": task_id, "traceback": None, "children": []} | shown(facts)

    def get_many(self, *args: Any, **options: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """The results of a group as they come, each with the id of its job."""
        for task_id, meta in super().get_many(*args, **options):  # type: ignore[misc]  # the other base class has it
            yield task_id, _of_that_job(task_id, meta)

    def _may_be_stored(self, facts: Facts) -> bool:
        """Whether its worker may still store a result that is kept: it does so between the end of a job and the end of its message."""
        if self.app.port.keeps_claims:
            return self.app.port.find(facts.id) is not None
        if facts.ended_at is None:
            return False
        seconds, _ = self.app.store.redis.time()  # `ended_at` is by the same clock
        return bool(seconds - facts.ended_at.timestamp() < UNSEEN)

    def _look(self, task_id: str) -> Facts:
        """What became of a job. If SQL does not answer, no thread asks it for a while."""
        app: Application = self.app
        asks = time.monotonic() >= _left_alone.get(app, 0.0)
        try:
            return look(Question(app, task_id, sql=asks))
        except sql_errors() as error:
            logger.warning("state of %s: SQL does not answer: %s", task_id, error)
            _left_alone[app] = time.monotonic() + LEFT_ALONE
            return look(Question(app, task_id, sql=False))

    def wait_for_pending(self, result: Any, *args: Any, on_interval: Any = None, **options: Any) -> Any:
        """Wait for a result. Nobody tells a waiting caller of one that is not kept, so the job is looked at each second."""

        def look_again() -> None:
            if on_interval is not None:
                on_interval()
            if (meta := self.get_task_meta(result.id))["status"] in states.READY_STATES:
                self.result_consumer.on_state_change(meta, None)

        return super().wait_for_pending(result, *args, on_interval=look_again, **options)  # type: ignore[misc]  # the same

    def exception_to_python(self, exc: Any) -> Any:
        """The error of a stored result, also if an older release stored the error's former module."""
        if isinstance(exc, dict) and exc.get("exc_module") == ERRORS_BEFORE:
            exc = exc | {"exc_module": errors.__name__}
        return super().exception_to_python(exc)  # type: ignore[misc]  # the other base class has it

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **options: Any
    ) -> Any:
        """Store a state. One that cannot be stored ends no job, unless it is the job's own end, or within `tell_of_end`.

        Celery would take a job for failed whose start, or whose retry, it could not note. Of a sealed job no text of an error is stored.

        Raises:
            RedisError, OSError: Redis did not accept a success or a failure.
        """
        if is_sealed_request(request):
            result, traceback = sealed_part(self.app, request, task_id, state, result), None
            request = copy(request)  # with `result_extended` Celery would store its arguments
            request.args, request.kwargs = [], {}
        try:
            return super().store_result(task_id, result, state, traceback, request, **options)
        except Exception as error:
            if state not in PASSING or must_be_stored.get():
                raise
            logger.warning("state %s not stored: id=%s: %s: %s", state, task_id, type(error).__name__, error)
            return result

    def meta_from_decoded(self, meta: dict[str, Any]) -> dict[str, Any]:
        """What is kept, with the result open where it was sealed and this process has its key."""
        found: dict[str, Any] = super().meta_from_decoded(meta)  # type: ignore[misc]  # the other base class has it
        if is_sealed_text(found.get("result")) and not is_closed():
            found["result"] = opened_part(self.app, str(found.get("task_id")), found["result"])
        return found

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


def _of_that_job(task_id: str, meta: dict[str, Any]) -> dict[str, Any]:
    """What is kept under an id; not where somebody has put the result of another job there, which may have been sealed."""
    if meta.get("task_id", task_id) == task_id:
        return meta
    error = CannotOpen(f"what is kept as the result of {task_id} is that of another job")
    return {"task_id": task_id, "status": states.FAILURE, "result": error, "traceback": None, "children": []}


def shown(facts: Facts) -> dict[str, Any]:
    """What Celery calls it: a state, with a result and a traceback. It has one word for all that has not begun, or is not known."""
    state = IN_CELERY.get(facts.state, states.PENDING)
    why = f"{facts.error}: {facts.error_message}" if facts.error else "its dead letter says how"
    match state:
        case states.SUCCESS:
            return {"status": state, "result": facts.result}
        case states.FAILURE | states.RETRY:
            return {"status": state, "result": JobFailed(f"{facts.id}: {why}"), "traceback": facts.traceback}
        case states.REVOKED if facts.state in CELERYS_OWN:
            return {"status": state, "result": TaskRevokedError(facts.state)}
        case states.REVOKED:
            return {"status": state, "result": JobCancelled(f"{facts.id}: {facts.state}")}
        case states.STARTED if facts.progress is not None:
            return {"status": PROGRESS, "result": described(facts.progress)}
    return {"status": state}


def described(progress: Progress) -> dict[str, Any]:
    """A progress as JSON. `current` and `description` are the names that celery-progress reads."""
    names = ("done", "failed", "total", "percent", "note", "rate", "eta", "stalled")
    fields = {name: getattr(progress, name) for name in names}
    return fields | {"current": progress.done, "description": progress.note}


class Backend(_Ours, RedisBackend):
    """Results in Redis."""


class SentinelResults(_Ours, SentinelBackend):
    """Results in Redis, on the master that Sentinel names."""
