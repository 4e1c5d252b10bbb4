"""The fast lane with chunks of a batch: each joins its batch once, and `finish` comes after the last."""

# pytest passes fixtures as arguments of their names

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import pytest

from conventions import Progress
from conventions.app import ConventionsApp
from tests.integration import lane_batches
from tests.integration.lane_batches import Short
from tests.integration.lane_fixtures import QUEUE, notes, sizes
from tests.support import wait_until
from tests.workers import Installation, Worker

ITEMS = 3000

Crew: TypeAlias = tuple[ConventionsApp, Worker]


@pytest.fixture
def crew(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[Crew]:
    """An application with the batch, and a worker for it."""
    settings: dict[str, Any] = {"broker_url": valkey_url, "database_url": new_database(tmp_path)}
    installation = Installation(tmp_path, [lane_batches.__name__], **settings)
    with installation.application() as app, installation.worker("-Q", QUEUE, "-c", "2") as worker:
        yield app, worker


def finished(folder: Path) -> list[dict[str, Any]]:
    """What `finish` was called with, each time."""
    path = folder / "finished"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check(app: ConventionsApp, batch: str, folder: Path) -> None:
    """Everything was counted once, and `finish` was called once, with that."""
    wait_until(lambda: finished(folder), 30, "the batch has ended")
    (summary,) = finished(folder)
    assert (summary["total"], summary["done"], summary["failed"]) == (ITEMS, ITEMS, 0)
    progress = Progress.of(batch, app.store)
    assert (progress.done, progress.total) == (ITEMS, ITEMS)
    assert {one.name for one in notes(folder)} == {str(first) for first in range(0, ITEMS, Short.chunk_size)}


def test_chunks_go_together(crew: Crew, tmp_path: Path) -> None:
    """Each runs once."""
    app, _ = crew
    batch = Short.delay(folder=tmp_path, items_in_all=ITEMS).id
    check(app, batch, tmp_path)
    found = notes(tmp_path)
    assert len(found) == ITEMS / Short.chunk_size
    assert max(sizes(found).values(), default=0) > 1


def test_a_process_is_killed_among_chunks(crew: Crew, tmp_path: Path) -> None:
    """One chunk is repeated at the most, and counted once."""
    app, worker = crew
    batch = Short.delay(folder=tmp_path, items_in_all=ITEMS).id
    for share in (4, 2):

        def in_a_group(share: int = share) -> int | None:
            found = notes(tmp_path)
            last = found[-1] if len(found) > ITEMS / Short.chunk_size / share else None
            return last.pid if last and last.group and sizes(found)[last.group] > 1 else None

        pid = wait_until(in_a_group, 60, "a group runs")
        assert psutil.Process(pid).ppid() == worker.process.pid
        os.kill(pid, signal.SIGKILL)
    check(app, batch, tmp_path)
    assert len(notes(tmp_path)) <= ITEMS / Short.chunk_size + 2
