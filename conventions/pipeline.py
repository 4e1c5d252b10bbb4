"""How a worker runs messages: validate, claim, run, settle.

Celery acknowledges a message after `execute` has returned or raised, so nothing is acknowledged before its outcome is
recorded.
"""

import logging
import random
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import celery
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from redis.exceptions import RedisError

from conventions.actor import acting_as
from conventions.errors import (
    JobCancelled,
    JobExited,
    JobFailed,
    JobRejected,
    PayloadError,
    TooManyStarts,
    TooOldToTell,
)
from conventions.failures import text_of
from conventions.idempotency import (
    Busy,
    Cancelled,
    Conflict,
    Dead,
    Done,
    EffectExists,
    Parked,
    Poison,
    Stale,
    Superseded,
    TooOld,
    TransactionBusy,
    conflict,
)
from conventions.job import COUNTS, KEY, Job
from conventions.outcomes import (
    awaited,
    end_dead,
    end_done,
    end_released,
    end_retried,
    end_waiting,
    end_without_run,
    follows,
    log_failure,
    publish_again,
    put_back,
    tell_of_death,
)
from conventions.payload import encode
from conventions.retry import RetryPolicy

logger = logging.getLogger(__name__)

KILLED = range(-255, -191)  # exit codes by which billiard ends a process: signal number - 256
PARK_AT_FIRST = 0.5  # seconds before a parked copy looks for the first time, where the broker is elsewhere
PARK_AT_MOST = 30.0  # seconds before it looks again


class RetryAsked(Retry):
    """`self.retry()` was called: the policy decides, as for any other error."""

    def __init__(self, error: Exception, countdown: float | None) -> None:
        super().__init__(exc=error)
        self.error = error
        self.countdown = countdown


def execute(task: Any, args: Any, kwargs: Any) -> Any:
    """Run the task's current request and return its result, or what the first run of its key returned."""
    try:
        job, values = _begin(task, args, kwargs)
    except (Ignore, Reject, PayloadError):
        raise
    except Exception as error:
        if task.request.is_eager:
            raise
        raise Reject(error, requeue=True) from error  # nothing was begun, so nothing has failed
    if not task.request.is_eager:
        found = _claim(task, job)
        if found is not None:
            job.ended = True
            return found.result
    try:
        result = _run(task, job, values)
    except EffectExists as found_effect:
        logger.info("duplicate: id=%s task=%s: the effect was committed before", job.id, job.task)
        result = found_effect.result
    except BaseException as error:
        ending = _ending(task, job, error)
        if ending is error:
            raise
        raise ending from error
    return _finish(task, job, result)


def _ending(task: Any, job: Job, error: BaseException) -> BaseException:
    """Record how a run that raised has ended. Returns what to raise."""
    match error:
        case TransactionBusy():
            logger.info("waits: id=%s task=%s: another transaction is recording its key", job.id, job.task)
            ending: BaseException = end_waiting(task, job, random.uniform(1, 2))
        case RetryAsked():
            ending = _outcome(task, job, error.error, error.countdown)
        case Reject():
            ending = _rejected(task, job, error)
        case Ignore():  # also of `self.replace`: another message goes on under this id
            ending = end_released(task, job, "superseded", error)
        case JobCancelled():
            logger.info("cancelled: id=%s task=%s: while it ran", job.id, job.task)
            ending = end_released(task, job, "cancelled", Ignore())
        case SystemExit() if error.code in KILLED:
            ending = error
        case SystemExit():  # of a library: it must neither end the worker nor lose the job
            ending = _outcome(task, job, _exited(error, f"the job called exit({error.code!r})"))
        case Exception():
            ending = _outcome(task, job, error)
        case _:  # such as asyncio.CancelledError, which Celery does not take for a failure
            ending = _outcome(task, job, _exited(error, f"the job raised {type(error).__name__}: {text_of(error)}"))
    return ending


def _exited(cause: BaseException, text: str) -> JobExited:
    exited = JobExited(text).with_traceback(cause.__traceback__)
    exited.__cause__ = cause
    return exited


def _begin(task: Any, args: Any, kwargs: Any) -> tuple[Job, dict[str, Any]]:
    try:
        values = task.arguments.load(args or (), kwargs or {})
    except PayloadError as error:
        job = Job.of(task, dict(kwargs or {}))
        raise end_dead(task, job, error, claimed=False) from None
    # What was sent by us was bound then; another program's message is bound now.
    sent_by_us = not args and getattr(task.request, KEY, None)
    job = Job.of(task, dict(kwargs) if sent_by_us else task.arguments.bind((), values))
    task.request.job = job
    return job, values


def _claim(task: Any, job: Job) -> Done | None:
    """Take the job's claim; the stored answer when it was finished before. Raises what ends this delivery."""
    try:
        (answer,) = task.app.claims.take([job.claim])
    except RedisError as error:
        logger.error("not started: id=%s task=%s: Redis does not answer: %s", job.id, job.task, error)
        raise put_back(task, job) from error
    match answer:
        case Done():
            return _done_before(task, job, answer)
        case Parked():
            logger.info("parked: id=%s task=%s: its key is in use, for %.1f s at most", job.id, job.task, answer.wait)
            raise Ignore
        case Busy():
            raise _park(task, job, answer)
        case Stale():
            logger.info("stale: id=%s task=%s: the message is in other hands", job.id, job.task)
            raise Ignore
        case Superseded():
            logger.info("superseded: id=%s task=%s: another copy is further on", job.id, job.task)
            raise end_without_run(task, job, "superseded")
        case Cancelled():
            logger.info("cancelled: id=%s task=%s", job.id, job.task)
            raise end_without_run(task, job, "cancelled")
        case Dead():  # recorded; only those who wait for it may not have heard
            failed = JobFailed(answer.error or "its dead letter says how")
            told = tell_of_death(task, job, failed)
            raise told if told is not failed or awaited(task) else Ignore()
    refused = _refusal(job, answer)
    if refused is not None:
        raise end_dead(task, job, refused, claimed=isinstance(answer, Poison))
    job.started_at = datetime.now(UTC)
    return None


def _refusal(job: Job, answer: Any) -> Exception | None:
    match answer:
        case Conflict():
            return conflict(job.task, job.key, answer.message_id)
        case Poison():
            return TooManyStarts(
                f"{job.task}: started {answer.starts} times without an outcome: each time its process was killed, or "
                "ran out of memory; look at the worker's log"
            )
        case TooOld():
            return TooOldToTell(
                f"{job.task}: sent at {job.enqueued_at}, which is longer ago than what is remembered "
                f"({job.horizon}): nobody can tell whether it ran; redrive it to run it"
            )
        case _:
            return None


def _done_before(task: Any, job: Job, done: Done) -> Done:
    """The stored result; what follows this message goes on with it, unless that was sent before."""
    logger.info("duplicate: id=%s task=%s: done before by id=%s", job.id, job.task, done.message_id)
    again = done.message_id == job.id
    followed = again and done.followed
    if not again or job.generation:  # a redrive must hear that it has ended
        end_without_run(task, job, "duplicate", keep=follows(task) and not followed)
    if followed:
        raise Ignore
    return done


def _park(task: Any, job: Job, busy: Busy) -> Exception:
    """Where the broker is elsewhere: let a copy look again when the holder may have ended. Returns what to raise."""
    # Soon at first, since most holders end within a second, then ever less often.
    wait = min(busy.wait, PARK_AT_MOST, PARK_AT_FIRST * 2 ** min(job.parked, 10)) * random.uniform(1, 1.2)
    logger.info("parked: id=%s task=%s: its key is in use, looks again in %.1f s", job.id, job.task, wait)
    publish_again(task, job, countdown=wait, parked=job.parked + 1)
    done_with_this_copy: Exception = Ignore()
    return done_with_this_copy


def _run(task: Any, job: Job, values: dict[str, Any]) -> Any:
    with acting_as(job.actor):
        if task.request.is_eager:
            return task.run(**values)
        try:
            with task.app.lease_keeper.holding(job.claim, task.stall_check()):
                return task.run(**values)
        finally:
            if (reporter := getattr(task.request, "reporter", None)) is not None:
                reporter.close()


def _finish(task: Any, job: Job, result: Any) -> Any:
    try:
        encode(result)
    except (TypeError, ValueError) as error:
        # Its effect happened, so it must not run again.
        refused = PayloadError(f"{job.task}: the result cannot be written as JSON ({error}); return JSON values")
        raise end_dead(task, job, refused) from error
    if task.request.is_eager:
        job.ended = True
    else:
        end_done(task, job, result)
    return result


def _rejected(task: Any, job: Job, rejected: Any) -> Exception:
    if rejected.requeue:
        return end_released(task, job, None, rejected, keep=True)
    reason = rejected.reason
    return end_dead(task, job, reason if isinstance(reason, Exception) else JobRejected(f"the task said: {reason}"))


def _outcome(task: Any, job: Job, error: Exception, countdown: float | None = None) -> Exception:
    """What to raise after a failure. A fault in what follows a failure, as in `should_retry`, loses no job."""
    try:
        return _after_failure(task, job, error, countdown)
    except (Retry, Ignore, Reject):
        raise
    except Exception as second:  # noqa: BLE001  # whatever it is, the job must end visibly
        second.__context__ = error
        return end_dead(task, job, second)


def _after_failure(task: Any, job: Job, error: Exception, countdown: float | None = None) -> Exception:
    """Send the next attempt, or end the message as dead. Returns what to raise: `Retry`, `Reject`, or the error."""
    policy: RetryPolicy = task.retry_policy
    kind = policy.kind_of(error)
    counts = dict(job.counts)
    counts[kind] = counts.get(kind, 0) + 1
    overruled = task.should_retry(error, job.attempt) if task.overrules_retry else None
    decision = policy.decide(error, counts, overruled=overruled)
    if isinstance(error, SoftTimeLimitExceeded):
        logger.warning("too long: id=%s task=%s: reached its soft limit; split it into smaller jobs", job.id, job.task)
    if decision.wait is None:
        return end_dead(task, job, error)
    wait = decision.wait if countdown is None else policy.within_limits(countdown)
    log_failure(job, error, f"next attempt in {wait:.1f} s")
    if task.request.is_eager:
        return _retry_eagerly(task, error, counts)
    return end_retried(task, job, error, wait, counts)


def _retry_eagerly(task: Any, error: Exception, counts: Mapping[str, int]) -> Exception:
    """Run the next attempt of a task that runs by `apply`, without a wait. Returns what to raise."""
    headers = (task.request.headers or {}) | {COUNTS: dict(counts)}
    retried: Exception = celery.Task.retry(
        task, exc=error, countdown=0, max_retries=sys.maxsize, throw=False, headers=headers
    )
    return retried
