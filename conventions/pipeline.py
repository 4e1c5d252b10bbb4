"""How a worker runs messages: validate, claim, run, settle; and what follows a failure.

Celery acknowledges a message after `execute` has returned or raised, so nothing is acknowledged before its outcome is
recorded.
"""

import logging
import random
import sys
import time
from collections.abc import Mapping
from typing import Any

import celery
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from redis.exceptions import RedisError

from conventions.actor import acting_as
from conventions.errors import BrokerUnavailable, IdempotencyConflict, JobExited, PayloadError
from conventions.idempotency import Busy, Cancelled, Conflict, Done, EffectExists, Settlement
from conventions.job import ACTOR, COUNTS, FINGERPRINT, KEY, PARKED, Job
from conventions.letters import own_headers, store_letter
from conventions.payload import encode

logger = logging.getLogger(__name__)

SETTLE_FOR = 60.0  # seconds that a finished job tries to record its outcome
KILLED = range(-255, -191)  # exit codes by which billiard ends a process: signal number - 256
PARK_AT_FIRST = 0.5  # seconds before a parked message looks for the first time
PARK_AT_MOST = 30.0  # seconds before a parked message looks again
PUT_BACK_FOR = 15.0  # seconds before a message comes again whose claim or dead letter could not be written


class RetryAsked(Retry):
    """`self.retry()` was called: the policy decides, as for any other error."""

    def __init__(self, error: Exception, countdown: float | None) -> None:
        super().__init__(exc=error)
        self.error = error
        self.countdown = countdown


def execute(task: Any, args: Any, kwargs: Any) -> Any:
    """Run the task's current request and return its result, or what the first run of its key returned."""
    job, values = _begin(task, args, kwargs)
    if not task.request.is_eager:
        found = _claim(task, job)
        if found is not None:
            return found.result
    try:
        result = _run(task, job, values)
    except EffectExists as found_effect:
        logger.info("duplicate: id=%s task=%s: the effect was committed before", job.id, job.task)
        result = found_effect.result
    except RetryAsked as asked:
        raise _outcome(task, job, asked.error, asked.countdown) from asked.error
    except (Ignore, Reject):
        _settle(task, Settlement(job.claim, "released"))
        raise
    except SystemExit as leaving:  # of a library: it must neither end the worker nor lose the job
        if leaving.code in KILLED:
            raise
        raise _outcome(task, job, JobExited(f"the job called exit({leaving.code!r})")) from leaving
    except Exception as error:
        outcome = _outcome(task, job, error)
        if outcome is error:
            raise
        raise outcome from error
    return _finish(task, job, result)


def _outcome(task: Any, job: Job, error: Exception, countdown: float | None = None) -> Exception:
    """What to raise after a failure. A fault in what follows a failure, as in `should_retry`, loses no job."""
    try:
        return _after_failure(task, job, error, countdown)
    except (Retry, Ignore, Reject):
        raise
    except Exception as second:  # noqa: BLE001  # whatever it is, the job must end visibly
        second.__context__ = error
        return end_dead(task, job, second)


def _begin(task: Any, args: Any, kwargs: Any) -> tuple[Job, dict[str, Any]]:
    try:
        values = task.arguments.load(args or (), kwargs or {})
    except PayloadError as error:
        job = Job.of(task, dict(kwargs or {}))
        raise end_dead(task, job, error) from None
    job = Job.of(task, task.arguments.bind((), values))
    task.request.job = job
    return job, values


def _claim(task: Any, job: Job) -> Done | None:
    """Take the job's claim; the stored answer when it was finished before. Raises what ends this delivery."""
    try:
        (answer,) = task.app.claims.take([job.claim])
    except RedisError as error:
        logger.error("not started: id=%s task=%s: Redis does not answer: %s", job.id, job.task, error)
        raise _put_back(task, job) from error
    match answer:
        case Done():
            logger.info("duplicate: id=%s task=%s: done before by id=%s", job.id, job.task, answer.message_id)
            return answer
        case Busy():
            raise _park(task, job, answer)
        case Conflict():
            conflict = IdempotencyConflict(
                f"{job.task}: key {job.key} was used by message {answer.message_id} with other arguments; "
                "use another idempotency_key, or name the differing argument in idempotent_on"
            )
            raise end_dead(task, job, conflict)
        case Cancelled():
            logger.info("cancelled: id=%s task=%s", job.id, job.task)
            raise Ignore
        case _:
            return None


def _park(task: Any, job: Job, busy: Busy) -> Exception:
    """Let a message look again when the holder of its key may have ended. Returns what to raise."""
    # Soon at first, since most holders end within a second, then ever less often.
    wait = min(busy.wait, PARK_AT_MOST, PARK_AT_FIRST * 2 ** min(job.parked, 10)) * random.uniform(1, 1.2)
    logger.info("parked: id=%s task=%s: its key is in use, looks again in %.1f s", job.id, job.task, wait)
    _publish_again(task, job, countdown=wait, parked=job.parked + 1)
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
            task.progress.close()


def _finish(task: Any, job: Job, result: Any) -> Any:
    try:
        encode(result)
    except (TypeError, ValueError) as error:
        # Its effect happened, so it must not run again.
        refused = PayloadError(f"{job.task}: the result cannot be written as JSON ({error}); return JSON values")
        raise end_dead(task, job, refused) from error
    if not task.request.is_eager and not _settle(task, Settlement(job.claim, "done", result)):
        logger.warning("superseded: id=%s task=%s: another worker has taken this job over", job.id, job.task)
        raise Ignore
    job.ended = True
    return result


def _after_failure(task: Any, job: Job, error: Exception, countdown: float | None = None) -> Exception:
    """Send the next attempt, or end the message as dead. Returns what to raise: `Retry`, `Reject`, or the error."""
    kind = task.retry_policy.kind_of(error)
    counts = dict(job.counts)
    counts[kind] = counts.get(kind, 0) + 1
    overruled = task.should_retry(error, job.attempt) if task.overrules_retry else None
    decision = task.retry_policy.decide(error, counts, overruled=overruled)
    if isinstance(error, SoftTimeLimitExceeded):
        logger.warning("too long: id=%s task=%s: reached its soft limit; split it into smaller jobs", job.id, job.task)
    if decision.wait is None:
        return end_dead(task, job, error)
    wait = decision.wait if countdown is None else countdown
    _log_failure(job, error, f"next attempt in {wait:.1f} s")
    if task.request.is_eager:
        return _retry_eagerly(task, error, counts)
    _settle(task, Settlement(job.claim, "released", wait=wait))
    _publish_again(task, job, countdown=wait, retries=job.attempt, counts=counts)
    retry: Exception = Retry(exc=error, when=wait)
    return retry


def _retry_eagerly(task: Any, error: Exception, counts: Mapping[str, int]) -> Exception:
    """Run the next attempt of a task that runs by `apply`, without a wait. Returns what to raise."""
    headers = (task.request.headers or {}) | {COUNTS: dict(counts)}
    retried: Exception = celery.Task.retry(
        task, exc=error, countdown=0, max_retries=sys.maxsize, throw=False, headers=headers
    )
    return retried


def end_dead(task: Any, job: Job, error: Exception) -> Exception:
    """Record a dead letter, settle, and tell the task. Returns what to raise."""
    _log_failure(job, error, "dead letter")
    if task.request.is_eager:
        return error
    refused = store_letter(task, job, error)
    if refused is not None:
        logger.error("dead letter not stored: id=%s task=%s: %s; it will run again", job.id, job.task, refused)
        _settle(task, Settlement(job.claim, "released"))
        return _put_back(task, job)
    _settle(task, Settlement(job.claim, "dead"))
    task.on_dead(job, error)
    return error


def _put_back(task: Any, job: Job) -> Exception:
    """Let the message wait and come again, with no attempt used. Returns what to raise."""
    _publish_again(task, job, countdown=PUT_BACK_FOR)
    done_with_this_copy: Exception = Ignore()
    return done_with_this_copy


def _publish_again(
    task: Any,
    job: Job,
    *,
    countdown: float,
    counts: Mapping[str, int] | None = None,
    retries: int | None = None,
    parked: int = 0,
) -> None:
    """Send the current message once more, under its id. Raises: Reject, so that it goes back, when that fails."""
    request = task.request
    again = task.signature_from_request(
        request,
        countdown=countdown,
        retries=request.retries if retries is None else retries,
        headers=own_headers(request)
        # A message of another program has these from now on, so that it goes on as the same one.
        | {KEY: job.key, FINGERPRINT: job.fingerprint, ACTOR: job.actor}
        | {COUNTS: dict(job.counts if counts is None else counts), PARKED: parked},
        ignore_result=request.ignore_result,
    )
    try:
        again.apply_async()
    except BrokerUnavailable as error:
        raise Reject(error, requeue=True) from error


def _settle(task: Any, settlement: Settlement) -> bool:
    """Record an outcome, for as long as `SETTLE_FOR`; then the message goes back: unknown is not failed."""
    deadline = time.monotonic() + SETTLE_FOR
    while True:
        try:
            return bool(task.app.claims.settle([settlement])[0])
        except RedisError as error:
            if time.monotonic() > deadline:
                raise Reject(error, requeue=True) from error
            logger.warning("outcome not recorded yet: id=%s: %s", settlement.request.message_id, error)
            time.sleep(1)


def _log_failure(job: Job, error: BaseException, next_step: str) -> None:
    logger.warning(
        "failed: id=%s task=%s error=%s: %s attempt=%d: %s",
        job.id,
        job.task,
        type(error).__name__,
        " ".join(str(error).split()),  # one failure, one line
        job.attempt,
        next_step,
    )
