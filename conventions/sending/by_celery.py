"""Celery sends a message that was checked here. Every way that Celery has to send ends in `send_task`, which knows it by its id."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import celery

_checked: ContextVar[str | None] = ContextVar("conventions_checked", default=None)


def was_checked(task_id: Any) -> bool:
    """Whether a message with this id was checked, so that Celery may send it."""
    return task_id is not None and task_id == _checked.get()


@contextmanager
def checked(task_id: str) -> Iterator[None]:
    """A message with this id was checked: within the block Celery sends it."""
    token = _checked.set(task_id)
    try:
        yield
    finally:
        _checked.reset(token)


def by_celery(task: Any, payload: Mapping[str, Any], task_id: str, **options: Any) -> Any:
    """Let Celery send a message of a task of ours that was checked."""
    with checked(task_id):
        return celery.Task.apply_async(task, (), payload, task_id=task_id, **options)
