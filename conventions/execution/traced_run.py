"""A span around an attempt: what it says of how the attempt ended."""

from collections.abc import Callable
from typing import Any

from celery.exceptions import Ignore, Reject, Retry

from conventions.core.errors import JobCancelled
from conventions.execution.attempt import Attempt
from conventions.tracing.spans import Running, Tracing


def run_traced(tracing: Tracing, job: Attempt, run: Callable[[], Any], *, outcome: str) -> Any:
    """Run an attempt that has begun, and what follows it, within a span.

    Args:
        tracing: makes the span.
        job: the attempt.
        run: returns its result, or raises what Celery is told.
        outcome: what it is if it raises nothing.
    """
    attempt = Running(
        task=job.task,
        message_id=job.id,
        queue=job.queue,
        worker=job.worker,
        attempt=job.attempt,
        redrives=job.generation,
        waited=job.waited,
        trace=job.trace,
    )
    with tracing.running(attempt) as span:
        job.span = span
        try:
            result = run()
        except BaseException as ending:
            span.ended(*_outcome_of(ending))
            raise
        span.ended(outcome)
        return result


def _outcome_of(ending: BaseException) -> tuple[str, BaseException | None]:
    """How it ended, with the error if it has failed: `run` raises the ending from its cause."""
    cause = ending.__cause__
    match ending:
        case Retry():
            # Celery's own is a copy that can be pickled, perhaps of another class.
            return "retried", _first_of(
                getattr(cause, "error", None) if isinstance(cause, Retry) else cause, ending.exc, ending
            )
        case Reject():  # the message comes again
            return "returned", _first_of(ending.reason, cause, ending)
        case Ignore():
            return ("cancelled" if isinstance(cause, JobCancelled) else "put off"), None
        case Exception():
            return "dead", ending
        case _:
            return "killed", ending


def _first_of(*found: Any) -> BaseException:
    return next(one for one in found if isinstance(one, BaseException))
