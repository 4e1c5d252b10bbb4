"""The log lines about failures: one failure, one line, with id, task, error and attempts (R9)."""

import logging

from conventions.core import error_text
from conventions.execution.attempt import Attempt

logger = logging.getLogger(__name__)


def log_failure(job: Attempt, error: BaseException, next_step: str) -> None:
    """Write that an attempt has failed.

    Args:
        job: the attempt.
        error: what it raised.
        next_step: what becomes of its message.
    """
    logger.warning(
        "failed: id=%s task=%s error=%s: %s attempt=%d: %s",
        job.id, job.task, type(error).__name__, _line_of(error), job.attempt, next_step,
    )  # fmt: skip


def log_unsendable(message_id: str, task: str, error: BaseException) -> None:
    """Write that a step which follows a job cannot be sent."""
    logger.warning(
        "failed: id=%s task=%s error=%s: %s: dead letter", message_id, task, type(error).__name__, _line_of(error)
    )


def log_refusal(message_id: str, task: str | None, error: BaseException) -> None:
    """Write that a message has ended before any code of a task has run."""
    name = None if task is None else error_text.cut(task)
    logger.error(
        "refused: id=%s task=%s error=%s: %s: dead letter", message_id, name, type(error).__name__, _line_of(error)
    )


def _line_of(error: BaseException) -> str:
    """The text of an error in one line: without secrets, and no longer than a dead letter keeps it."""
    return " ".join(error_text.text_of(error).split())
