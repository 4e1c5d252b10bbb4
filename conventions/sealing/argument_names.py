"""`ArgumentNames`: what all known tasks say of an argument by its name, for whoever looks for one (R21)."""

import inspect
from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from conventions.core.near_names import near_names
from conventions.sealing.sealed_task import is_sealed

_OF_CELERY = "celery."  # its own tasks, some of which take any name


class ArgumentNames(NamedTuple):
    """Arguments of all tasks that are known here.

    Attributes:
        sensitive: those that any class calls so.
        searchable: those by which sealed jobs of any class are found.
        taken: those that any task takes.
        clear: those of them that any task takes whose messages are not sealed.
        any_name: whether such a task, a function, takes arguments of any name.
    """

    sensitive: frozenset[str]
    searchable: frozenset[str]
    taken: frozenset[str]
    clear: frozenset[str]
    any_name: bool

    @classmethod
    def of(cls, tasks: Iterable[Any]) -> Self:
        """Those of these tasks: classes of ours, and functions."""
        found: dict[str, set[str]] = {"sensitive": set(), "searchable": set(), "taken": set(), "clear": set()}
        any_name = False
        for task in tasks:
            if task.name.startswith(_OF_CELERY):
                continue
            names, takes_any = taken_by(task)
            found["sensitive"].update(getattr(task, "sensitive", ()))
            found["searchable"].update(getattr(task, "searchable", ()))
            found["taken"].update(names)
            if not is_sealed(task):
                found["clear"].update(names)
                any_name = any_name or takes_any
        return cls(**{of: frozenset(names) for of, names in found.items()}, any_name=any_name)

    def knows(self, name: str) -> bool:
        """Whether a task takes it."""
        return name in self.taken or self.any_name

    def is_clear(self, name: str) -> bool:
        """Whether a task takes it, no class calls it sensitive, and not all that take it seal their messages."""
        clear = name in self.clear or (self.any_name and name not in self.taken and not self.near_hidden(name))
        return clear and name not in self.sensitive

    def near_hidden(self, name: str) -> list[str]:
        """Names that are not in clear, one of which somebody may have meant who has written one that no task names."""
        if name in self.taken:
            return []
        hidden = {one.casefold(): one for one in self.taken if not self.is_clear(one)}
        return [hidden[one] for one in near_names(name.casefold(), hidden)]


def taken_by(task: Any) -> tuple[Iterable[str], bool]:
    """Names of the arguments of a task, one of ours or a function, and whether it takes others."""
    if (arguments := getattr(task, "arguments", None)) is not None:
        return arguments.names, False
    taken = inspect.signature(task.run).parameters.values()
    return [one.name for one in taken if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)], any(
        one.kind is one.VAR_KEYWORD for one in taken
    )
