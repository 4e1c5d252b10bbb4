"""The fast lane with chunks of a batch: each joins its batch once, and `finish` comes after the last."""

# pytest passes fixtures as arguments of their names

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from conventions import Progress
from conventions.app import ConventionsApp
from tests.integration import lane_batches
from tests.integration.lane_batches import Short
from tests.integration.lane_fixtures import QUEUE, TURNS, notes, sizes
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
    wait_until(lambda: finished(folder), 60, "the batch has ended")
    (summary,) = finished(folder)
    assert (summary["total"], summary["done"], summary["failed"]) == (ITEMS, ITEMS, 0)
    progress = Progress.of(batch, app.store)
    assert (progress.done, progress.total) == (ITEMS, ITEMS)
    assert {one.name for one in notes(folder)} == {str(first) for first in range(0, ITEMS, Short.chunk_size)}


def test_chunks_go_together(crew: Crew, tmp_path: Path) -> None:
    """Each runs once."""
    app, _ = crew
    batch = Short.delay(folder=tmp_path, items_in_all=ITEMS, kill_from=[]).id
    check(app, batch, tmp_path)
    found = notes(tmp_path)
    assert len(found) == ITEMS / Short.chunk_size
    assert max(sizes(found).values(), default=0) > 1


def test_a_process_is_killed_among_chunks(crew: Crew, tmp_path: Path) -> None:
    """One chunk is repeated at the most for each kill, and counted once."""
    app, _ = crew
    kill_from = [ITEMS // 4, ITEMS // 2]
    for number in range(TURNS):
        folder = tmp_path / str(number)
        folder.mkdir()
        batch = Short.delay(folder=folder, items_in_all=ITEMS, kill_from=kill_from).id
        check(app, batch, folder)
        kills = len(list(folder.glob("killed from *")))
        assert ITEMS / Short.chunk_size <= len(notes(folder)) <= ITEMS / Short.chunk_size + kills
        if kills == len(kill_from):
            return
    pytest.fail("no process was killed twice with chunks behind")
