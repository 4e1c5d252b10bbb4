"""Let Celery send a checked message. All of Celery's ways to send end in `send_task`, which knows the message by its id."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import celery

from conventions.execution.declared_task import DeclaredTask

_checked: ContextVar[str | None] = ContextVar("conventions_checked", default=None)


def was_checked(task_id: Any) -> bool:
    """Whether a message with this id was checked, so Celery may send it."""
    return task_id is not None and task_id == _checked.get()


@contextmanager
def checked(task_id: str) -> Iterator[None]:
    """Mark the message with this id as checked: Celery may send it within the block."""
    token = _checked.set(task_id)
    try:
        yield
    finally:
        _checked.reset(token)


def by_celery(task: DeclaredTask, payload: Mapping[str, Any], task_id: str, **options: Any) -> Any:
    """Let Celery send a checked message of one of our tasks."""
    with checked(task_id):
        sent: Any = celery.Task.apply_async(task, (), payload, task_id=task_id, **options)
    sent.ignored = False  # Celery's `get` would return at once; ours looks what became of the job
    return sent
