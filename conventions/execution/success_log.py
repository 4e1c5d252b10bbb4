"""The log line about a job that succeeded: one for each, with id, task, seconds, actor and attempt, and without its result (R9)."""

from collections.abc import Callable
from typing import Any

from conventions.execution.attempt import Attempt
from conventions.execution.current_job import current_job
from conventions.library_internals.celery import RETRIED, log_successes

SUCCEEDED = "Task %(name)s[%(id)s] succeeded in %(runtime)ss"  # of a function, which is no job of ours
JOB_SUCCEEDED = f"{SUCCEEDED} actor=%(actor)s attempt=%(attempt)d"


def parts_of(job: Attempt) -> dict[str, Any]:
    """What the line has beside Celery's parts."""
    return {"actor": job.actor, "attempt": job.attempt, "event": "succeeded"}


def as_our_line(info: Callable[[str, dict[str, Any]], None]) -> Callable[[str, dict[str, Any]], None]:
    """`info` of Celery's tracer, which logs successes, retries, and what it ignores. What the job returned is neither in the text nor among its parts; who sent it is."""

    def told(text: str, parts: dict[str, Any]) -> None:
        kept = {name: value for name, value in parts.items() if name != "return_value"}
        job = current_job()
        if job is None or job.id != parts.get("id"):
            info(text, kept)
        elif text == SUCCEEDED:
            info(JOB_SUCCEEDED, kept | parts_of(job))
        elif text != RETRIED:  # which our own line about the failure has said
            info(text, kept)

    return told


def use_success_line() -> None:
    """Let Celery write this line in this process, and in those that it forks."""
    log_successes(SUCCEEDED, as_our_line)
