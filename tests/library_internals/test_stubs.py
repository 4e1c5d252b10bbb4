"""What mypy is told of Celery, in `stubs/`, is so: it cannot look itself, since Celery ships no types."""

import ast
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import pytest

STUBS = Path(__file__).parents[2] / "stubs"


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """Each class of the stubs, with its address."""
    for path in sorted(STUBS.rglob("*.pyi")):
        module = ".".join(path.relative_to(STUBS).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                yield f"{module}:{node.name}", node


def names(node: ast.ClassDef) -> Iterator[tuple[str, bool]]:
    """Each name in a class, and whether it is a method."""
    for one in node.body:
        if isinstance(one, ast.FunctionDef):
            yield one.name, True
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            yield one.target.id, False


def exists(made: Any, name: str, *, is_method: bool) -> bool:
    """Whether an object has this, without making what is made when it is first asked for."""
    if name in vars(made):
        return not is_method
    found = inspect.getattr_static(type(made), name, None)
    if found is None:  # a class attribute that is `None` until Celery sets it
        return not is_method and hasattr(type(made), name)
    return not is_method or isinstance(found, classmethod) or callable(found)


MADE = {
    "celery.app.base:Celery": lambda: celery.Celery("stubs", set_as_current=False),
    "celery.app.task:Task": celery.Task,
}


@pytest.mark.parametrize(("address", "node"), [*classes()], ids=lambda one: one if isinstance(one, str) else "")
def test_celerys_class_has_what_the_stub_names(address: str, node: ast.ClassDef) -> None:
    """So an attribute that Celery takes away is found here, and a typing error in our code by mypy."""
    made = MADE[address]()
    assert type(made) is pkgutil.resolve_name(address)
    assert [name for name, is_method in names(node) if not exists(made, name, is_method=is_method)] == []


def test_there_are_two_classes() -> None:
    """The folder was found."""
    assert [address for address, _ in classes()] == [*MADE]
