"""The log line about a job that succeeded: what it says, and that it has no result (R9)."""

from collections.abc import Callable
from typing import Any

from conventions.library_internals.celery import log_successes

SUCCEEDED = "Task %(name)s[%(id)s] succeeded in %(runtime)ss"


def without_result(info: Callable[[str, dict[str, Any]], None]) -> Callable[[str, dict[str, Any]], None]:
    """`info` of Celery's tracer, which logs a success, but without what the job returned: neither in the text nor among its parts."""

    def told(text: str, parts: dict[str, Any]) -> None:
        info(text, {name: value for name, value in parts.items() if name != "return_value"})

    return told


def use_success_line() -> None:
    """Let Celery write this line in this process, and in those that it forks."""
    log_successes(SUCCEEDED, without_result)
