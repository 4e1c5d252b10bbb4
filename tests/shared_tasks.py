"""An application that is the only one of ours has all classes that its process has declared, and Celery gives it all shared functions.

Those of all tests are some 390, which take it 0.2 s each time. So an application of a test gets those of the module of the test, of what it imports, and of the packages that it names.
"""

import inspect
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeAlias

from celery import _state

from conventions.tasks import owners

Finalizer: TypeAlias = Callable[[Any], None]

_hidden = set[Finalizer]()
_hidden_classes = dict[Any, type[Any]]()


@contextmanager
def those_of(module: ModuleType) -> Iterator[None]:
    """Hide the tasks of other tests within the block."""
    used = _modules_of(module)
    _hidden.update(
        one for one in _state._on_app_finalizers if (name := _declared_in(one)) not in used and _is_of_tests(name)
    )
    _state._on_app_finalizers -= _hidden
    for key, one in list(owners._classes.items()):
        if one.__module__ not in used and _is_of_tests(one.__module__):
            _hidden_classes[key] = owners._classes.pop(key)
    try:
        yield
    finally:
        _state._on_app_finalizers |= _hidden
        for key, one in _hidden_classes.items():
            owners._classes.setdefault(key, one)
        _hidden.clear()
        _hidden_classes.clear()


def show(packages: Collection[str]) -> None:
    """Hide those of these modules and packages no longer."""
    found = {one for one in _hidden if _is_within(_declared_in(one), packages)}
    _hidden.difference_update(found)
    _state._on_app_finalizers |= found
    for key, one in list(_hidden_classes.items()):
        if _is_within(one.__module__, packages):
            owners._classes[key] = _hidden_classes.pop(key)


def _is_within(module: str, packages: Collection[str]) -> bool:
    return any(f"{module}.".startswith(f"{name}.") for name in packages)


def _declared_in(finalizer: Finalizer) -> str:
    of = inspect.getclosurevars(finalizer).nonlocals
    return str(getattr(of.get("options", {}).get("base") or of.get("fun"), "__module__", ""))


def _modules_of(module: ModuleType) -> set[str]:
    """The name of a module of tests, and of those that it imports something from, directly or through others."""
    found, left = set[str](), [module.__name__]
    while left:
        name = left.pop()
        if name not in found and name in sys.modules:
            found.add(name)
            values = vars(sys.modules[name]).values()
            names = {
                one.__name__ if isinstance(one, ModuleType) else getattr(one, "__module__", None) for one in values
            }
            left += [one for one in names if isinstance(one, str) and _is_of_tests(one)]
    return found


def _is_of_tests(module: str) -> bool:
    return module.startswith(("tests.", "test_"))
