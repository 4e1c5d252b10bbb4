"""`map`, `starmap` and `chunks` of our tasks: one call that runs a task many times."""

from collections.abc import Iterable, Sequence
from typing import Any

import celery
from celery.canvas import Signature, chunks, group
from pydantic_core import PydanticSerializationError, to_jsonable_python

from conventions.core.canonical_json import encode
from conventions.declare.arguments_as_json import check_size
from conventions.sending.sendable_task import SendableTask


def signed(task: SendableTask, *args: Any, **options: Any) -> Signature:
    """Celery's `signature`, with JSON arguments, since a signature may travel inside another message."""
    named = {name: _in_json(options[name]) for name in ("args", "kwargs") if name in options}
    return celery.Task.signature(task, *map(_in_json, args), **options | named)


def _in_json(value: Any) -> Any:
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError:
        return value  # the send will report the fault


def mapped(task: SendableTask, items: Iterable[Any]) -> Signature:
    """A message for each item; each is a job of its own. Checks each item. Raises: TypeError, PayloadError."""
    return starmapped(task, ((item,) for item in items))


def starmapped(task: SendableTask, items: Iterable[Sequence[Any]]) -> Signature:
    """A message for each tuple of arguments; each is a job of its own. Checks each tuple. Raises: TypeError, PayloadError."""
    signatures = [task.s(**task.checked(item, {})) for item in items]
    return group(signatures, app=task.app)


def in_chunks(task: SendableTask, items: Iterable[Sequence[Any]], size: int) -> Signature:
    """Messages that run the task for `size` tuples each. Checks each tuple.

    Such a message belongs to Celery's own task, not to a job of ours: its items share one outcome, and have no own
    claim, retry or dead letter. Use `starmap` or a `BatchTask` where you need them.

    Raises:
        TypeError, PayloadError: as a send; TypeError also for a task that requires a permission.
    """
    if task.encrypt:
        raise TypeError(
            f"{task.name}: chunks sends it within a task of Celery, which does not seal it; use starmap, or a BatchTask"
        )
    if task.requires is not None:
        raise TypeError(
            f"{task.name}: chunks runs it within a task of Celery, which asks nobody for the permission that it requires; use starmap, or a BatchTask"
        )
    checked = _positional(task, items)
    for start in range(0, len(checked), size):
        _check_size(task, checked[start : start + size])
    return _Chunks(task.s(), checked, size, app=task.app, **_options(task))


def _positional(task: SendableTask, items: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(task.arguments.bind(item).values()) for item in items]


def _check_size(task: SendableTask, items: list[Any]) -> None:
    check_size(task.name, encode({"it": items}), getattr(task.app.settings, task.payload_limit_setting))


def _options(task: SendableTask) -> dict[str, Any]:
    # The message belongs to Celery's own task, which does not know our queue.
    return {"ignore_result": task.ignore_result, "queue": task.queue_name}


class _Chunks(chunks):
    """Celery's chunks, with the options of their signature, which Celery drops."""

    def group(self) -> group:
        tasks = super().group()
        for task in tasks.tasks:
            task.set(**{name: self.options[name] for name in ("ignore_result", "queue")})
        return tasks
