"""The task packages of a team. Their modules are imported; an error names the module and the line that failed."""

import importlib
import pkgutil
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from conventions.core.errors import DeclarationError, TaskModuleError
from conventions.declare.team_migrations import MIGRATIONS

# Modules and packages below a task package that are run and not imported, or that others import.
LEFT_OUT = frozenset(
    ["__main__", "conftest", "manage", "management", MIGRATIONS, "scripts", "setup", "tests", "wsgi", "asgi"]
)


def import_tasks(packages: Iterable[str]) -> None:
    """Import these packages and the modules in them, but for those of `LEFT_OUT`. Raises: TaskModuleError."""
    for package in packages:
        for module in _walk(package):
            _import(module)


def _walk(package: str) -> Iterator[str]:
    yield package
    module = _import(package)
    for info in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{package}."):
        if info.name.rpartition(".")[2] not in LEFT_OUT:
            yield from _walk(info.name)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except DeclarationError as error:
        raise TaskModuleError([f"{_place(name, error)}: {error}"]) from error
    except (Exception, SystemExit) as error:  # whatever a module raises, the error says where
        raise TaskModuleError([f"{_place(name, error)}: {type(error).__name__}: {error}"]) from error


def _place(name: str, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{name} ({error.filename}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    here = str(Path(__file__).parents[1])
    ours = [
        frame
        for frame in frames
        if Path(frame.filename).is_file()
        and not {here, str(Path(importlib.__file__).parent)} & {*map(str, Path(frame.filename).parents)}
    ]
    return f"{name} ({ours[-1].filename}, line {ours[-1].lineno})" if ours else f"{name}"
