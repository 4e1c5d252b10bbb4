"""What our classes take the place of in those of Celery, kombu and RedBeat that they are derived from, and what they use of them.

`python -m tests.library_internals.overridden` writes `overridden.txt` anew, once somebody has looked at what has changed.
"""

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery.result import AsyncResult

import conventions
from conventions.sending.ignored_result import IgnoredResult
from tests.library_internals.seam import arguments_of, digest_of

LIBRARIES = ("amqp", "billiard", "celery", "kombu", "redbeat", "vine")
RECORD = Path(__file__).with_name("overridden.txt")
OF_EVERY_CLASS = {"__annotate_func__", "__annotations__", "__annotations_cache__", "__dict__", "__doc__",
                  "__firstlineno__", "__module__", "__parameters__", "__static_attributes__", "__weakref__"}  # fmt: skip
DOCUMENTED = ("celery.bootsteps", "celery.exceptions")  # of which classes are derived as their documents say


class Ignored(IgnoredResult, AsyncResult):  # as `ignored_result` makes it for an application
    """A class that is made at run time."""


def modules() -> Iterator[Any]:
    """Every module of the package, but migrations, which Alembic runs."""
    for found in pkgutil.walk_packages(conventions.__path__, "conventions."):
        if ".migrations" not in found.name:
            yield importlib.import_module(found.name)


def library_of(cls: type) -> str:
    """The library that a class is of."""
    return cls.__module__.partition(".")[0]


def derived() -> list[type]:
    """Our classes that are derived from those of a library."""
    found: set[type] = {Ignored}
    for module in modules():
        for cls in vars(module).values():
            if isinstance(cls, type) and cls.__module__.startswith("conventions.") and theirs(cls):
                found.add(cls)
    return sorted(found, key=_name)


def ours(cls: type) -> list[type]:
    """Its bases of our own, itself first."""
    return [one for one in cls.__mro__ if one.__module__.startswith(("conventions.", __name__))]


def theirs(cls: type) -> list[type]:
    """Its bases of the libraries."""
    found = [one for one in cls.__mro__ if library_of(one) in LIBRARIES]
    return [] if found and found[0].__module__ in DOCUMENTED else found


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def replaced(cls: type) -> Iterator[str]:
    """A line for each attribute of theirs that a class of ours has, too."""
    for mine in ours(cls):
        for name in vars(mine):
            base = next((one for one in theirs(cls) if name in vars(one)), None)
            if base is None or name in OF_EVERY_CLASS:
                continue
            value = vars(base)[name]
            value = getattr(value, "fget", None) or getattr(value, "func", None) or value
            value = getattr(value, "__func__", value)
            shape = f"{arguments_of(value)} {digest_of(value)}" if inspect.isfunction(value) else ""
            yield f"{mine.__qualname__} replaces {_name(base)}.{name}{shape}"


def used(cls: type) -> Iterator[str]:
    """A line for each class of ours: what of theirs it uses."""
    known = {name for base in theirs(cls) for name in {*vars(base), *_assigned(base), *getattr(base, "__slots__", ())}}
    for mine in ours(cls):
        names = sorted({name for name in _attributes(mine) if name in known} - OF_EVERY_CLASS)
        if names:
            yield f"{mine.__qualname__} uses, as {_name(theirs(cls)[0])}: {' '.join(names)}"


def _tree(cls: type) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(cls)))


def _is_self(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id == "self"


def _attributes(cls: type) -> set[str]:
    """Names that it reads or sets of itself, or of its base."""
    return {node.attr for node in ast.walk(_tree(cls)) if isinstance(node, ast.Attribute) and _is_self(node.value)}


def _assigned(cls: type) -> set[str]:
    """Names that it sets."""
    return {
        node.attr
        for node in ast.walk(_tree(cls))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value)
    }


def lines() -> list[str]:
    """All of it, sorted."""
    found: defaultdict[str, None] = defaultdict()
    for cls in derived():
        for line in (*replaced(cls), *used(cls)):
            found[line] = None
    return sorted(found)


if __name__ == "__main__":
    RECORD.write_text("".join(f"{line}\n" for line in lines()), encoding="utf-8")
