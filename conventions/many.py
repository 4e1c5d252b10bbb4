"""`map`, `starmap` and `chunks` of our tasks: one message that runs a task many times."""

from collections.abc import Iterable, Sequence
from typing import Any

from celery.canvas import Signature, chunks, group, xmap, xstarmap


def mapped(task: Any, items: Iterable[Any]) -> Signature:
    """The signature of `[task(item) for item in items]`; checks each item. Raises: TypeError, PayloadError."""
    checked = [next(iter(task.arguments.bind((item,)).values())) for item in items]
    return xmap(task.s(), checked, app=task.app, ignore_result=task.ignore_result)


def starmapped(task: Any, items: Iterable[Sequence[Any]]) -> Signature:
    """The signature of `[task(*item) for item in items]`; checks each item. Raises: TypeError, PayloadError."""
    return xstarmap(task.s(), _positional(task, items), app=task.app, ignore_result=task.ignore_result)


def in_chunks(task: Any, items: Iterable[Sequence[Any]], size: int) -> Signature:
    """The signature of starmaps of `size` items each; checks each item. Raises: TypeError, PayloadError."""
    return _Chunks(task.s(), _positional(task, items), size, app=task.app, ignore_result=task.ignore_result)


def _positional(task: Any, items: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(task.arguments.bind(item).values()) for item in items]


class _Chunks(chunks):
    """Celery's chunks forget the options of their signature, and with them that results were asked for."""

    def group(self) -> group:
        tasks = super().group()
        for task in tasks.tasks:
            task.set(ignore_result=self.options["ignore_result"])
        return tasks
