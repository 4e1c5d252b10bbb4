"""What the tests of poison share: a worker that outlives each of them, its application, and what holds after each."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from conventions.app import ConventionsApp
from tests import raw_messages as raw
from tests.integration.poison_tasks import QUEUE, Good
from tests.support import patient
from tests.workers import Worker, acting_through, letters


@pytest.fixture(scope="module")
def keeper(valkey_url: str, new_database: Callable[[Path], str], tmp_path_factory: Any) -> Iterator[raw.Keeper]:
    """Runs the worker of these tests."""
    with raw.Keeper.at(tmp_path_factory.mktemp("poison"), valkey_url, new_database) as keeper:
        yield keeper


@pytest.fixture
def worker(keeper: raw.Keeper) -> Worker:
    """The worker: the same one for all tests, unless one of them ended it."""
    return keeper.running()


@pytest.fixture
def app(keeper: raw.Keeper) -> Iterator[ConventionsApp]:
    """Its application in this process."""
    with acting_through(keeper.app):
        yield keeper.app


@pytest.fixture(autouse=True)
def expected(worker: Worker, app: ConventionsApp) -> Iterator[dict[str, int]]:
    """Whatever a test sends, the same main process runs a good job afterwards, and nothing is left in the broker.

    There are as many letters more as `expected` says: one.
    """
    before, expected = len(letters(app, state=None)), {"letters": 1}
    yield expected
    raw.check_unharmed(app, worker, QUEUE)
    assert Good.delay(str(uuid4())).get(timeout=patient(10))
    assert len(letters(app, state=None)) == before + expected["letters"], worker.output[-5000:]
