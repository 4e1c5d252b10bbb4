"""The names under which messages of a task may come: its own, its aliases, and those of the parts of a batch."""

from collections.abc import Collection, Mapping
from typing import Any


def names_of(tasks: Mapping[str, Any], wanted: Collection[str]) -> frozenset[str]:
    """Every registered name of these tasks; of a batch also those of its chunks and of what follows it.

    Args:
        tasks: Celery's registry, in which an alias stands beside the name.
        wanted: the tasks' own names.
    """
    return frozenset(name for name, task in tasks.items() if task.name in wanted or _batch_of(task) in wanted)


def _batch_of(task: Any) -> str:
    role = getattr(task, "role", "splitter")
    return "" if role == "splitter" else str(task.name).rpartition(".")[0]
