"""The log lines about failures: one failure, one line, with id, task, error and attempts (R9)."""

import logging

from conventions.core import error_text
from conventions.execution.attempt import Job

logger = logging.getLogger(__name__)


def log_failure(job: Job, error: BaseException, next_step: str) -> None:
    """An attempt has failed.

    Args:
        job: the attempt.
        error: what it raised.
        next_step: what becomes of its message.
    """
    text = _one_line(error_text.text_of(error))
    logger.warning(
        "failed: id=%s task=%s error=%s: %s attempt=%d: %s",
        job.id, job.task, type(error).__name__, text, job.attempt, next_step,
    )  # fmt: skip


def log_unsendable(message_id: str, task: str, error: BaseException) -> None:
    """A step that follows a job cannot be sent."""
    logger.warning("failed: id=%s task=%s error=%s: %s: dead letter", message_id, task, type(error).__name__, error)


def log_refusal(message_id: str, task: str | None, error: BaseException) -> None:
    """A message ends before any code of a task has run."""
    name = None if task is None else error_text.cut(task)
    logger.error(
        "refused: id=%s task=%s error=%s: %s: dead letter",
        message_id, name, type(error).__name__, _one_line(str(error)),
    )  # fmt: skip


def _one_line(text: str) -> str:
    return " ".join(text.split())
