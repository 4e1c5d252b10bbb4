"""What `django.tasks` calls a result: what is known of an enqueued task, for the caller and for receivers of its signals."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.dispatch import Signal
from django.tasks.base import Task, TaskResult, TaskResultStatus

logger = logging.getLogger(__name__)


def result_of(
    task: "Task[Any, Any]",
    id_: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    backend: str,
    enqueued_at: datetime | None = None,
) -> "TaskResult[Any, Any]":
    """One that is ready to run. Raises: TypeError: the arguments are no JSON."""
    return TaskResult(
        task=task,
        id=id_,
        status=TaskResultStatus.READY,
        enqueued_at=enqueued_at,
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=list(args),
        kwargs=dict(kwargs),
        backend=backend,
        errors=[],
        worker_ids=[],
    )


def tell(signal: Signal, sender: type[Any], result: "TaskResult[Any, Any]") -> None:
    """Send a signal of `django.tasks`. A receiver that raises decides nothing about the job: its error is logged."""
    for receiver, error in signal.send_robust(sender, task_result=result):
        if isinstance(error, Exception):
            logger.error("a receiver of a signal of django.tasks failed: %s", receiver, exc_info=error)


def change(result: "TaskResult[Any, Any]", **values: Any) -> None:
    """Set what it holds: it is frozen for all but a backend."""
    for name, value in values.items():
        object.__setattr__(result, name, value)
