"""The Alembic migrations of a task package. Those of Django, and of another Alembic environment, are left alone."""

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from conventions.core.errors import TaskModuleError
from conventions.core.settings import ENV_PREFIX

MIGRATIONS = "migrations"


def migrations_of(package: str) -> Iterator[Path]:
    """The folders of versions of a task package which `db upgrade` runs. It reads the files, and executes nothing.

    Raises:
        TaskModuleError: there is no such package; or a folder has versions of Alembic beside migrations of Django.
    """
    for folder in _folders(package):
        if left_alone(folder) is None:
            yield folder


def foreign_migrations_of(package: str) -> Iterator[tuple[Path, str]]:
    """The folders that `db upgrade` leaves alone, each with the reason. Raises: as `migrations_of`."""
    for folder in _folders(package):
        if reason := left_alone(folder):
            yield folder, reason


def left_alone(folder: Path) -> str | None:
    """Why a folder called `migrations` is not ours to run; `None` for a folder of Alembic versions.

    Raises:
        TaskModuleError: it has versions of Alembic beside migrations of Django, or a file that is no Python.
    """
    if (folder / "env.py").exists():  # Alembic would execute it as if it were a version
        return "an Alembic environment of its own: run its `alembic upgrade`"
    files = [file for file in sorted(folder.glob("*.py")) if file.is_file() and not file.name.startswith(".")]
    kinds = {_kind(file) for file in files}
    if {"alembic", "django"} <= kinds:
        raise TaskModuleError([f"{folder}: it has versions of Alembic and migrations of Django; move one of them"])
    if "django" in kinds:
        return "migrations of Django: run `manage.py migrate`"
    return None if "alembic" in kinds else "no Alembic version in it"


def _folders(package: str) -> Iterator[Path]:
    try:  # does not import the package, so that `db upgrade` works beside a broken task
        spec = importlib.util.find_spec(package)
    except ImportError:
        spec = None
    if spec is None:
        raise TaskModuleError([f"{package}: there is no such module; see create_app and {ENV_PREFIX}TASK_PACKAGES"])
    for folder in spec.submodule_search_locations or ():
        if (Path(folder) / MIGRATIONS).is_dir():
            yield Path(folder) / MIGRATIONS


def _kind(file: Path) -> str | None:
    """`alembic` for a version, `django` for a migration, else `None`."""
    try:
        found = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise TaskModuleError([f"{file}, line {getattr(error, 'lineno', 1)}: {error}"]) from error
    if any(isinstance(one, ast.ClassDef) and one.name == "Migration" for one in found.body):
        return "django"
    return "alembic" if "revision" in set(_names_of_module(found.body)) else None


def _names_of_module(statements: Iterable[ast.stmt]) -> Iterator[str]:
    """The names that a module gives itself, also within `if` and `try`."""
    for one in statements:
        for part in ast.walk(one) if not isinstance(one, ast.ClassDef | ast.FunctionDef) else ():
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                yield part.id
            elif isinstance(part, ast.alias):
                yield part.asname or part.name
