"""The message of the next attempt: a retry, a job that waits for its key or goes on later, one that is put back."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.exceptions import Ignore, Reject, Retry
from redis.exceptions import RedisError

from conventions.broker.caller_headers import AcceptedHeaders
from conventions.broker.header_names import ACTOR, COPY, COUNTS, FINGERPRINT, KEY, PARKED, READY_AT
from conventions.core.errors import BrokerUnavailable
from conventions.execution.attempt import Attempt
from conventions.execution.attempt_event import headers_to_go_on
from conventions.execution.runnable_task import RunnableTask
from conventions.execution.settle import settle, superseded, taken_over
from conventions.idempotency.claims import State

PUT_BACK_FOR = 15.0  # seconds before a message comes again for whose claim Redis was not there


def end_retried(
    task: RunnableTask, job: Attempt, error: Exception, wait: float, counts: Mapping[str, int], *, claimed: bool = True
) -> Exception:
    """Let the message wait and be tried again; `claimed`: whether the job holds its claim. Returns what to raise."""
    changes = {"retries": job.attempt, COUNTS: dict(counts), **_ready_in(wait), **_identity(job)}
    if job.held is None:  # the copy first: a lost one would be a lost job, two are sorted out by their attempts
        if claimed and _is_lost(task, job):
            return superseded(job)
        publish_again(task, job, countdown=wait, retries=job.attempt, counts=counts, anew=True)
    answer = settle(
        task, job, "released", "retried", error=error, claimed=claimed, wait=wait, action="retry", changes=changes
    )
    if answer == "missing":  # the broker lost it, as after a flush
        publish_again(task, job, countdown=wait, retries=job.attempt, counts=counts, anew=True)
    if answer == "refused":
        return taken_over()
    retry: Exception = Retry(exc=error, when=wait)
    return retry


def end_waiting(task: RunnableTask, job: Attempt, wait: float, state: State = "released") -> Exception:
    """Let the message come again, with no attempt used; `continued`: to go on. Returns what to raise."""
    again: dict[str, Any] = {"countdown": wait}
    changes: dict[str, Any] = {}
    if state == "continued":  # what went well so far is no failed attempt any more, and it has begun in time
        again |= {"counts": {}, "parked": 0, "expires": None, "anew": True}
        changes = {"retries": job.attempt - 1, "expires": None, COUNTS: {}, **_ready_in(wait), **_identity(job)}
    if job.held is None:
        if _is_lost(task, job):
            return superseded(job)
        publish_again(task, job, **again)
    answer = settle(task, job, state, None, wait=wait, action="park", changes=changes)
    if answer == "missing":
        publish_again(task, job, **again)
    if answer == "refused":
        return taken_over()
    done_with_this_delivery: Exception = Ignore()
    return done_with_this_delivery


def _is_lost(task: RunnableTask, job: Attempt) -> bool:
    """Whether another delivery ends the job, or it was ended from outside. Then nothing of it is settled or sent: its message comes again."""
    with suppress(RedisError):
        return bool(task.app.claims.is_lost(job.claim))
    return False


def put_back(task: RunnableTask, job: Attempt) -> Exception:
    """Let the message come again, with no attempt used, when Redis does not answer. Returns what to raise."""
    if job.held is not None:
        comes_again: Exception = Reject("Redis does not answer", requeue=True)
        return comes_again
    publish_again(task, job, countdown=PUT_BACK_FOR)
    done_with_this_copy: Exception = Ignore()
    return done_with_this_copy


def publish_again(
    task: RunnableTask,
    job: Attempt,
    *,
    countdown: float,
    counts: Mapping[str, int] | None = None,
    retries: int | None = None,
    parked: int | None = None,
    anew: bool = False,
    **options: Any,
) -> None:
    """Send the current message once more, under its id; `anew`: its wait counts from the end of `countdown`.

    Raises:
        Reject: that fails, so the message goes back.
    """
    request = task.request
    again = task.signature_from_request(
        request,
        countdown=countdown,
        retries=request.retries if retries is None else retries,
        headers=AcceptedHeaders(
            headers_to_go_on(request)
            | _identity(job)
            | {COUNTS: dict(job.counts if counts is None else counts)}
            | {PARKED: job.parked if parked is None else parked, COPY: job.token}
            | (_ready_in(countdown) if anew else _ready_as_before(job))
        ),
        ignore_result=request.ignore_result,
        **options,
    )
    try:
        again.apply_async()
    except BrokerUnavailable as error:
        raise Reject(error, requeue=True) from error


def _ready_in(seconds: float) -> dict[str, Any]:
    return {READY_AT: (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()}


def _ready_as_before(job: Attempt) -> dict[str, Any]:
    return {READY_AT: job.ready_at.isoformat()} if job.ready_at else {}


def _identity(job: Attempt) -> dict[str, Any]:
    # A message of another program has these from now on, so that it goes on as the same one.
    return {KEY: job.key, FINGERPRINT: job.fingerprint, ACTOR: job.actor}
