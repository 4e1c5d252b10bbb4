"""Which tasks have their messages sealed: those whose class says so, or all (R21)."""

from typing import Any


def is_sealed(task: Any) -> bool:
    """Whether the messages of a task are sealed: one of ours, a function, or one of which only the name is known here."""
    return bool(getattr(task, "encrypt", False)) or task.app.settings.seal_payloads == "all"
