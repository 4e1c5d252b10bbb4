"""Projects of Django, on each kind of database."""

from pathlib import Path

import pytest

from tests.django_project import DjangoProject


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of database."""
    return str(request.param)


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
