"""The log lines about failures: one failure, one line, with id, task, error and attempts (R9).

Each has its parts as `extra`, too, for whatever writes the log as JSON: ours (`json_log.py`) or a team's.
"""

import logging
from datetime import UTC, datetime
from typing import Any

from conventions.core import error_text
from conventions.execution.attempt import Attempt

logger = logging.getLogger(__name__)

_ENDED = "%(event)s: id=%(id)s task=%(task)s error=%(error)s: %(error_message)s: %(next_step)s"


def log_failure(job: Attempt, error: BaseException, next_step: str) -> None:
    """Write that an attempt has failed.

    Args:
        job: the attempt.
        error: what it raised.
        next_step: what becomes of its message.
    """
    parts = _parts("failed", job.id, job.task, error, sealed=job.sealed) | {
        "attempt": job.attempt,
        "next_step": next_step,
        "actor": job.actor,
    }
    if job.started_at is not None:
        parts["runtime"] = round((datetime.now(UTC) - job.started_at).total_seconds(), 6)
    logger.warning(
        "failed: id=%(id)s task=%(task)s error=%(error)s: %(error_message)s attempt=%(attempt)d actor=%(actor)s%(after)s: %(next_step)s",
        parts | {"after": f" after {parts['runtime']:.3f} s" if "runtime" in parts else ""},
        extra=parts,
    )


def log_unsendable(message_id: str, task: str, error: BaseException, *, sealed: bool) -> None:
    """Write that a step which follows a job cannot be sent; `sealed`: without the text of the error."""
    parts = _parts("failed", message_id, task, error, sealed=sealed)
    logger.warning(_ENDED, parts, extra=parts)


def log_refusal(message_id: str, task: str | None, error: BaseException) -> None:
    """Write that a message has ended before any code of a task has run."""
    parts = _parts("refused", message_id, None if task is None else error_text.cut(task), error)
    logger.error(_ENDED, parts, extra=parts)


def _parts(
    event: str, message_id: str, task: str | None, error: BaseException, *, sealed: bool = False
) -> dict[str, Any]:
    """The error is in one line: without secrets, and no longer than a dead letter keeps it."""
    text = " ".join(error_text.text_for(error, sealed=sealed).split())
    return {
        "event": event,
        "id": message_id,
        "task": task,
        "error": type(error).__name__,
        "error_message": text,
        "next_step": "dead letter",
    }
