"""What these tests share."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from conventions.app import ConventionsApp
from tests.deploy import exposed
from tests.deploy.exposed import Samples, samples_of
from tests.workers import application, forget


@pytest.fixture(scope="session")
def promtool() -> Callable[..., str]:
    """Call promtool, and return what it says. Raises: AssertionError with that, where it finds a fault."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")

    def call(*arguments: str | Path) -> str:
        ended = subprocess.run(
            [program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    return call


@pytest.fixture
def planned_app(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[ConventionsApp]:
    """An application with a schedule."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path), "key_prefix": f"t{uuid4().hex[:8]}"}
    with application([exposed.__name__], **settings) as app:
        app.load_tasks()
        yield app
        forget(app.store)


@pytest.fixture
def samples(planned_app: ConventionsApp) -> Samples:
    """What its exporter serves."""
    return samples_of(planned_app)
