"""What follows an attempt that failed: another one, or a dead letter."""

import sys
from collections.abc import Mapping

import celery
from celery.exceptions import Ignore, Reject, Retry

from conventions.broker.header_names import COUNTS
from conventions.core.errors import PermissionDenied
from conventions.execution.attempt import Attempt
from conventions.execution.failure_log import log_failure
from conventions.execution.retry_message import end_retried
from conventions.execution.runnable_task import RunnableTask
from conventions.execution.settle import end_dead
from conventions.permission.decisions import NoAnswer


def end_failed(
    task: RunnableTask, job: Attempt, error: Exception, countdown: float | None = None, *, claimed: bool = True
) -> Exception:
    """Send the next attempt, or end the message as dead. A fault in what follows a failure, as in `should_retry`, loses no job.

    Args:
        task: the running task.
        job: its attempt.
        error: what it failed with.
        countdown: seconds that it asks to wait; `None`: as the policy says.
        claimed: whether the job holds its claim.

    Returns:
        What to raise: `Retry`, `Reject`, or the error.
    """
    try:
        return _after_failure(task, job, error, countdown, claimed=claimed)
    except (Retry, Ignore, Reject):
        raise
    except Exception as second:  # noqa: BLE001  # whatever it is, the job must end visibly
        second.__context__ = error
        return end_dead(task, job, second, claimed=claimed)


def _after_failure(
    task: RunnableTask, job: Attempt, error: Exception, countdown: float | None, *, claimed: bool
) -> Exception:
    policy, final = task.retry_policy, error
    if isinstance(error, NoAnswer):  # it is tried again as for what the authorizer met, and denied in the end
        denied = PermissionDenied(str(error)).with_traceback(error.__traceback__)
        denied.lacked_by, denied.__cause__ = error.lacked_by or job.actor, error
        error, final = error.cause, denied
    kind = policy.kind_of(error)
    counts = dict(job.counts)
    counts[kind] = counts.get(kind, 0) + 1
    asks = task.overrules_retry and not isinstance(final, PermissionDenied)  # nobody overrules that
    decision = policy.decide(error, counts, overruled=task.should_retry(error, job.attempt) if asks else None)
    if decision.wait is None:
        return end_dead(task, job, final, claimed=claimed)
    wait = decision.wait if countdown is None else policy.within_limits(countdown)
    log_failure(job, error, f"next attempt in {wait:.1f} s")
    if task.request.is_eager:
        return _retry_eagerly(task, error, counts)
    return end_retried(task, job, error, wait, counts, claimed=claimed)


def _retry_eagerly(task: RunnableTask, error: Exception, counts: Mapping[str, int]) -> Exception:
    """Run the next attempt of a task that runs by `apply`, without a wait. Returns what to raise."""
    headers = (task.request.headers or {}) | {COUNTS: dict(counts)}
    retried: Exception = celery.Task.retry(
        task, exc=error, countdown=0, max_retries=sys.maxsize, throw=False, headers=headers
    )
    return retried
