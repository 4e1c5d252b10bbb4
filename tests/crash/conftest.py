"""What the crash tests share: a server of their own, and a way to show figures."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conventions.app import ConventionsApp
from tests.crash import crash_tasks
from tests.crash.server import Server
from tests.workers import Installation


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Valkey that the test may kill."""
    with Server(tmp_path_factory.mktemp("v")) as server:  # a short path: that of a socket has a limit
        yield server


@pytest.fixture
def task_module() -> str:
    """The module whose tasks the workers run."""
    return crash_tasks.__name__


@pytest.fixture
def installation(tmp_path: Path, server: Server, new_database: Callable[[Path], str], task_module: str) -> Installation:
    """An application on that server, with the platform's own intervals."""
    settings = {"broker_url": server.url, "database_url": new_database(tmp_path)}
    return Installation(tmp_path, [task_module], [Path(__file__).parent], **settings)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """The application in this process, which sends."""
    with installation.application() as app:
        yield app


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print figures, also of tests that pass."""

    def printed(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201  # the figures are part of the result

    return printed
