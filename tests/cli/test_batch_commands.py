"""`celery batch`: what it prints, what it changes, and its exit status (R19)."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from conventions.app import ConventionsApp
from conventions.batches import chunk_id
from conventions.cli import batch as batch_module
from conventions.cli.batch import batch
from tests.workers import messages

FIELDS = {"id", "task", "state", "total", "done", "failed", "chunks", "percent"}

type Run = Callable[..., Result]


def rows(result: Result) -> Any:
    """The JSON of a command that succeeded; nothing else is on standard output."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def running(commands_app: ConventionsApp) -> str:
    """A batch of seven items in four chunks: the first is done, the second is dead."""
    batches = commands_app.batches
    batches.create("b1", "tests.cli.command_tasks.Import", 7)
    batches.seal("b1", chunks=4, total=7)
    batches.join("b1", 0, "done", 2)
    batches.join("b1", 1, "dead", 2)
    return "b1"


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """`watch` looks a hundred times a second."""
    monkeypatch.setattr(batch_module, "LOOK_EVERY", 0.01)


def test_an_empty_listing_is_an_empty_array(run: Run) -> None:
    """With status 0."""
    assert rows(run(batch, "list", "--json")) == []
    assert run(batch, "list").exit_code == 0


def test_list_names_the_fixed_fields(run: Run, running: str, commands_app: ConventionsApp) -> None:
    """The newest first; the percentage is the floor; what is not known is null."""
    commands_app.batches.create("b2", "tests.cli.command_tasks.Import", None)
    newest, oldest = rows(run(batch, "list", "--json"))
    assert set(newest) == FIELDS
    assert (newest["total"], newest["chunks"], newest["percent"]) == (None, None, 0)
    assert oldest == {
        "id": running, "task": "tests.cli.command_tasks.Import", "state": "running",
        "total": 7, "done": 2, "failed": 2, "chunks": 4, "percent": 28,
    }  # fmt: skip
    assert [row["id"] for row in rows(run(batch, "list", "--json", "--limit", "1"))] == ["b2"]
    assert "tests.cli.command_tasks.Import" in run(batch, "list").stdout


def test_show_names_the_dead_chunks(run: Run, running: str) -> None:
    """One object; people get the command that shows a dead chunk's letter."""
    shown = rows(run(batch, "show", running, "--json"))
    assert set(shown) >= FIELDS
    assert shown["failed_chunks"] == [1]
    assert f"dead-letters show {chunk_id(running, 1)}" in run(batch, "show", running).stdout


@pytest.mark.parametrize("command", ["show", "watch", "cancel", "retry-failed"])
def test_an_unknown_batch_is_a_no(run: Run, command: str) -> None:
    """Status 1, nothing on standard output."""
    result = run(batch, command, "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nobody" in result.stderr


def test_a_batch_that_died_before_it_began_is_shown(run: Run, commands_app: ConventionsApp) -> None:
    """Its items could not be counted: its id is known to whoever sent it, and must not end in a traceback."""
    commands_app.batches.set_state("b1", "dead")
    assert run(batch, "show", "b1").exit_code in (0, 1)


@pytest.mark.parametrize(
    ("outcomes", "state", "status"),
    [(["done", "done"], "done", 0), (["done", "dead"], "done", 1), ([], "dead", 1), ([], "cancelled", 1)],
)
@pytest.mark.usefixtures("quick_looks")
def test_watch_ends_with_the_batch(
    run: Run, commands_app: ConventionsApp, outcomes: list[Any], state: str, status: int
) -> None:
    """Status 0 when all is done, 1 when items failed or the batch did not get there."""
    batches = commands_app.batches
    batches.create("b1", "tests.cli.command_tasks.Import", 4)

    def work() -> None:
        for index, outcome in enumerate(outcomes):
            batches.join("b1", index, outcome, 2)
        batches.set_state("b1", state)

    later = threading.Timer(0.1, work)
    later.start()
    result = run(batch, "watch", "b1")
    later.join()
    assert result.exit_code == status
    assert (
        result.stdout.splitlines()[-1]
        == f"{state}: {2 * outcomes.count('done')} done, {2 * outcomes.count('dead')} failed"
    )


def test_cancel_stops_a_batch_once(run: Run, running: str, commands_app: ConventionsApp) -> None:
    """What has ended cannot be cancelled: status 1."""
    assert run(batch, "cancel", running).exit_code == 0
    assert commands_app.batches.state(running) == "cancelled"
    again = run(batch, "cancel", running)
    assert (again.exit_code, again.stdout) == (1, "b1 has ended already: cancelled\n")


def test_retry_failed_redrives_the_dead_chunks(
    run: Run, running: str, bury: Callable[..., None], commands_app: ConventionsApp
) -> None:
    """Under the chunk's own id; a chunk that is on its way already is not sent twice, and says so by status 1."""
    arguments = {
        "batch_id": running, "chunk_index": 1, "total_chunks": 4, "items": ["c", "d"], "arguments": {"path": "x"},
    }  # fmt: skip
    bury(chunk_id(running, 1), task="tests.cli.command_tasks.Import.chunk", arguments=arguments)
    first = run(batch, "retry-failed", running)
    assert (first.exit_code, first.stdout) == (0, "1 of 1 dead chunks sent again\n")
    (sent,) = messages(commands_app)
    assert (sent.id, sent.task, sent.arguments) == (
        chunk_id(running, 1),
        "tests.cli.command_tasks.Import.chunk",
        arguments,
    )
    again = run(batch, "retry-failed", running)
    assert (again.exit_code, again.stdout) == (1, "0 of 1 dead chunks sent again\n")
    assert len(messages(commands_app)) == 1
