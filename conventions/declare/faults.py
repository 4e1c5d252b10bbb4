"""`Faults`: what is wrong with a declaration, so that its author hears of all of it at once."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from conventions.core.errors import DeclarationError

P = ParamSpec("P")
R = TypeVar("R")


class Faults:
    """The faults of one class, in the order in which they were found."""

    def __init__(self) -> None:
        self._found: list[DeclarationError] = []

    def check(self, check: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Call a check, and note its fault. Returns what it returns; `None` after a fault."""
        try:
            return check(*args, **kwargs)
        except DeclarationError as error:
            self._found.append(error)
            return None

    def refuse(self) -> None:
        """End the checks. Raises: DeclarationError: there was a fault; of several each has a line."""
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            raise DeclarationError("\n".join(map(str, self._found)))
