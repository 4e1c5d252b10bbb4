"""The chapters of the tutorial share one worker, which is a process of its own, as in production."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conventions.app import ConventionsApp
from tests.workers import Installation, Worker, acting_through

CHAPTERS = sorted(path.stem for path in Path(__file__).parent.glob("test_*.py"))


@pytest.fixture(scope="session")
def tutorial(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """An application with the tasks of every chapter."""
    folder = tmp_path_factory.mktemp("tutorial")
    settings = {"broker_url": valkey_url, "database_url": new_database(folder)}
    return Installation(folder, CHAPTERS, [Path(__file__).parent], **settings)


@pytest.fixture(scope="session")
def _tutorial_app(tutorial: Installation) -> Iterator[ConventionsApp]:
    with tutorial.application() as app:
        yield app


@pytest.fixture(scope="session")
def worker(tutorial: Installation) -> Iterator[Worker]:
    """`celery -A … worker`, running."""
    with tutorial.worker() as worker:
        yield worker


@pytest.fixture
def live_app(worker: Worker, _tutorial_app: ConventionsApp) -> Iterator[ConventionsApp]:
    """The application that the tests send through; its worker runs."""
    with acting_through(_tutorial_app):
        yield _tutorial_app


@pytest.fixture(autouse=True)
def _everything_runs(live_app: ConventionsApp) -> None:
    """No chapter has to ask for the worker."""


@pytest.fixture(scope="module", autouse=True)
def _without_tasks_of_other_tests() -> None:
    """The application is that of all chapters, so it has the tasks of all."""
