"""`sending_method`: a method that works on the class and on the task, so that a team can send the class itself."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from conventions.core.errors import DeclarationError

P = ParamSpec("P")
R = TypeVar("R")


class sending_method(Generic[P, R]):  # noqa: N801  # used like a decorator, and named like one
    """A method that works on the registered task when it is called on the class."""

    def __init__(self, method: Callable[Concatenate[Any, P], R]) -> None:
        self._method = method
        update_wrapper(self, method)  # type: ignore[arg-type]  # for __doc__ and __wrapped__

    def __get__(self, task: Any, cls: Any) -> Callable[P, R]:  # what a method is bound to; `P` and `R` are what counts
        if task is None and cls.registered is None:
            raise DeclarationError(f"{cls.__qualname__} is abstract: it defines no run, so it cannot be sent")
        return self._method.__get__(cls.registered if task is None else task)  # type: ignore[no-any-return]
