"""Projects of Django, on each kind of database."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.django_project import DjangoProject
from tests.postgres import database_of

type NewProject = Callable[..., DjangoProject]


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of database."""
    return str(request.param)


@pytest.fixture(scope="module")
def shared_projects(
    request: pytest.FixtureRequest, valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NewProject]:
    """Makes a project on a kind, with its tables and ours, once for all tests of a module: they may change rows, but not the project."""
    with ExitStack() as stack:

        @cache
        def of(kind: str) -> DjangoProject:
            url = None
            if kind == "postgresql":
                url = stack.enter_context(database_of(request.getfixturevalue("_postgresql")))
            made = DjangoProject(tmp_path_factory.mktemp("shared"), url, broker_url=valkey_url)
            made.manage("migrate")
            return made

        yield of


@pytest.fixture
def project(request: pytest.FixtureRequest, valkey_url: str, tmp_path: Path, kind: str) -> DjangoProject:
    """A project on each kind, with nothing in its database."""
    postgres_url = request.getfixturevalue("postgres_url") if kind == "postgresql" else None
    return DjangoProject(tmp_path, postgres_url, broker_url=valkey_url)


@pytest.fixture
def migrated(project: DjangoProject) -> DjangoProject:
    """One with its tables, and ours."""
    project.manage("migrate")
    return project


@pytest.fixture
def sqlite_project(valkey_url: str, tmp_path: Path) -> DjangoProject:
    """A project on SQLite, with nothing in its database."""
    return DjangoProject(tmp_path, broker_url=valkey_url)
