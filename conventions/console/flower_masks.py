"""Hides values from viewers on Flower's pages and in its API, and texts that may contain values."""

import re
from collections.abc import Mapping
from typing import Any

from celery.events.state import Task

from conventions.console.hidden_values import HIDDEN

# Fields that are not listed here are hidden, also those of a later release.
SHOWN = frozenset(
    [
        *(
            "uuid",
            "name",
            "state",
            "received",
            "sent",
            "started",
            "rejected",
            "succeeded",
            "failed",
            "retried",
            "revoked",
        ),
        *("eta", "expires", "retries", "worker", "timestamp", "runtime", "exchange", "routing_key", "clock", "client"),
        *("root", "root_id", "parent", "parent_id", "children"),
    ]
)
HIDING = frozenset(["args", "kwargs", "argsrepr", "kwargsrepr", "result", "exception", "traceback"])
SORTED = frozenset(SHOWN - {"children", "root", "parent", "client"})
_CLASS = re.compile(r"[A-Za-z_][\w.]*(?=\()")


def masked(value: Any) -> Any:
    """Tasks without values; also for anything that has tasks as fields."""
    if isinstance(value, Task):
        return MaskedTask(value)
    if isinstance(value, Mapping):
        return {name: _hidden(name, one) if name in HIDING else masked(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [masked(one) for one in value]
    return value


def _hidden(name: str, value: Any) -> Any:
    if value is None or value == "":
        return value
    found = _CLASS.match(value) if name == "exception" and isinstance(value, str) else None
    return f"{found[0]}({HIDDEN})" if found else HIDDEN


class MaskedTask:
    """A masked task with the interface of Flower's tasks."""

    _fields = Task._fields

    def __init__(self, task: Task) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._task, name)
        return _hidden(name, value) if name in Task._fields and name not in SHOWN else value

    def as_dict(self) -> dict[str, Any]:
        """Its fields."""
        return {name: value if name in SHOWN else _hidden(name, value) for name, value in self._task.as_dict().items()}
