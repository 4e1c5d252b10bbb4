"""`map`, `starmap` and `chunks` of our tasks: one message that runs a task many times."""

from collections.abc import Iterable, Sequence
from typing import Any

from celery.canvas import Signature, chunks, group, xmap, xstarmap

from conventions.actor import current_actor
from conventions.job import ACTOR
from conventions.payload import check_size


def mapped(task: Any, items: Iterable[Any]) -> Signature:
    """The signature of `[task(item) for item in items]`; checks each item. Raises: TypeError, PayloadError."""
    checked = [next(iter(task.arguments.bind((item,)).values())) for item in items]
    _check_size(task, checked)
    return xmap(task.s(), checked, app=task.app, **_options(task))


def starmapped(task: Any, items: Iterable[Sequence[Any]]) -> Signature:
    """The signature of `[task(*item) for item in items]`; checks each item. Raises: TypeError, PayloadError."""
    checked = _positional(task, items)
    _check_size(task, checked)
    return xstarmap(task.s(), checked, app=task.app, **_options(task))


def in_chunks(task: Any, items: Iterable[Sequence[Any]], size: int) -> Signature:
    """The signature of starmaps of `size` items each; checks each item. Raises: TypeError, PayloadError."""
    checked = _positional(task, items)
    for start in range(0, len(checked), size):
        _check_size(task, checked[start : start + size])
    return _Chunks(task.s(), checked, size, app=task.app, **_options(task))


def _positional(task: Any, items: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(task.arguments.bind(item).values()) for item in items]


def _check_size(task: Any, items: list[Any]) -> None:
    check_size(task.name, {"it": items}, getattr(task.app.settings, task.payload_limit_setting))


def _options(task: Any) -> dict[str, Any]:
    # The message is one of Celery's own task, which knows neither our queue nor who sends it.
    return {
        "ignore_result": task.ignore_result,
        "queue": task.queue_name,
        "headers": {ACTOR: current_actor()},
    }


class _Chunks(chunks):
    """Celery's chunks forget the options of their signature."""

    def group(self) -> group:
        tasks = super().group()
        for task in tasks.tasks:
            task.set(**{name: self.options[name] for name in ("ignore_result", "queue", "headers")})
        return tasks
