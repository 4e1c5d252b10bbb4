"""`NamedTask`: stands for a task of which only the name is known here."""

from typing import NamedTuple, Protocol

from conventions.execution.application import Application


class Named(Protocol):
    """Any task, ours or not, of which an error says the name. Reading it of a task's class costs a look-up, so the task itself is passed."""

    @property
    def name(self) -> str:
        """Under which it is registered."""


class NamedTask(NamedTuple):
    """Attributes are those of a task."""

    app: Application
    name: str
