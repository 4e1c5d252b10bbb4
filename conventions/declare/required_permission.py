"""`requires`: which permission the actor of a job needs; a text, or a method that makes one of the job's arguments (R20)."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from conventions.core.error_text import without_values
from conventions.core.errors import DeclarationError, PermissionDenied
from conventions.core.value_bounds import fault_of_name

Requires: TypeAlias = str | Callable[..., str] | None
"""The permission; a method that returns it, with arguments of `run` by their names; `None`: anybody may run it."""

OPTION = "requires"
_SAMPLE = f'{OPTION} = "report:read"'
_NO_NAME = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_requires(cls: type, arguments: Sequence[str]) -> None:
    """Check what a class requires.

    Args:
        cls: the class.
        arguments: the names of the arguments of its `run`; of `items`, for a batch.

    Raises:
        DeclarationError: with the line to write instead.
    """
    name, declared = cls.__qualname__, inspect.getattr_static(cls, OPTION)
    if declared is None:
        return
    if isinstance(declared, str):
        if fault := "is empty" if not declared.strip() else fault_of_name(declared):
            raise DeclarationError(f"{name}: {OPTION} {fault}; write {_SAMPLE}")
        return
    function = declared.__func__ if isinstance(declared, (staticmethod, classmethod)) else declared
    if not inspect.isfunction(function):
        raise DeclarationError(
            f"{name}: {OPTION} is a permission, or a method that returns one, not {declared!r}; write {_SAMPLE}, or def {OPTION}(self, ...)"
        )
    _check_method(name, function, arguments, of_object=not isinstance(declared, staticmethod))


def _check_method(name: str, function: Callable[..., Any], arguments: Sequence[str], *, of_object: bool) -> None:
    if any(
        kind(function)
        for kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    ):
        raise DeclarationError(f"{name}: {OPTION} must be a plain function: write def {OPTION}(self, ...) -> str")
    parameters = list(inspect.signature(function).parameters.values())
    if of_object:
        if not parameters or parameters[0].name not in {"self", "cls"}:
            raise DeclarationError(
                f"{name}: {OPTION} is a method: write def {OPTION}(self, {', '.join(one.name for one in parameters)})"
            )
        parameters = parameters[1:]
    for one in parameters:
        if one.kind in _NO_NAME or one.name not in arguments:
            there = ", ".join(arguments) or "none"
            raise DeclarationError(
                f"{name}: {OPTION} takes {one.name!r}, which is no argument of the job; there are: {there}"
            )


def permission_of(task: str, requires: Requires, values: Mapping[str, Any]) -> str:
    """The permission that a job needs.

    Args:
        task: the name of its task.
        requires: what its class says, of the object, so that a method is bound.
        values: the arguments of `run`, as it gets them.

    Raises:
        PermissionDenied: the method returns no permission.
        Exception: what the method raises.
    """
    found: object = requires(**{name: values[name] for name in _taken(requires)}) if callable(requires) else requires
    if not isinstance(found, str) or not found.strip() or fault_of_name(found):
        raise without_values(
            PermissionDenied(
                f"{task}: {OPTION} returned {type(found).__name__} that is no permission, so nobody may run it"
            )
        )
    return found


@functools.lru_cache(maxsize=1000)
def _taken(requires: Callable[..., str]) -> tuple[str, ...]:
    return tuple(inspect.signature(requires).parameters)
