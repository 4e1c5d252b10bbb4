"""Tables on a terminal: an id that can be copied is whole, or a beginning that commands take, and nothing else is lost."""

import re
from collections.abc import Callable
from datetime import date
from typing import TypeAlias

import click
import pytest
from click.testing import Result
from rich.console import Console

from conventions.app import ConventionsApp
from conventions.batches.batch_state import Origin
from conventions.cli.audit import audit
from conventions.cli.base import SHORT_IDS
from conventions.cli.batch import batch
from conventions.cli.dead_letters import dead_letters
from conventions.cli.fitted_table import fitted_table
from conventions.cli.job import job
from conventions.cli.jobs import jobs
from conventions.cli.lost import lost
from conventions.cli.messages import messages
from conventions.cli.now import now
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_rows import RedriveOrder
from conventions.metrics.worker_reports import RunningJob, WorkerReport, WorkerReports
from tests.cli.command_tasks import Import, Send
from tests.failures import failure, record
from tests.redriving import begin

Run: TypeAlias = Callable[..., Result]

DEAD, LOST, WAITS, BATCH, RUNS = (f"6d96ffb{number}-0000-4000-8000-000000000001" for number in range(5))
FITS: dict[str, tuple[click.Command, tuple[str, ...], str, tuple[int, ...]]] = {
    "jobs": (jobs, ("list",), WAITS, (120, 180)),
    "letters": (dead_letters, ("list",), DEAD, (120, 180)),
    "audit": (audit, ("list", "--outcome", "dead"), DEAD, (120, 180)),
    "messages": (messages, ("list",), WAITS, (120, 180)),
    "lost": (lost, (), LOST, (120, 180)),
    "batches": (batch, ("list",), BATCH, (80, 120, 180)),
    "now": (now, (), RUNS, (80, 120, 180)),
}


@pytest.fixture
def filled(commands_app: ConventionsApp) -> ConventionsApp:
    """Rows of each listing, with long names and texts."""
    error = ValueError("the bank did not answer, and nobody there knows why that was so " * 3)
    kinds = {DEAD: "dead", LOST: "lost"}
    for id_, kind in kinds.items():
        values = {"task": str(Send.name), "kind": kind, "actor": "accounts@shop.example"}
        record(commands_app.database, failure(id_, error, **values))  # type: ignore[arg-type]  # its fields
    Send.apply_async(kwargs={"user_id": 7, "day": date(2026, 1, 5)}, task_id=WAITS, actor="accounts@shop.example")
    commands_app.batches.create(BATCH, Origin(str(Import.name), {"path": "x"}, "u-42"))
    running = (RunningJob(task="shop.invoices.tasks.sweep_all_of_them", id=RUNS, since=1.0),)
    WorkerReports(commands_app.store).say("celery@worker-3.shop.example", WorkerReport(running=running))
    return commands_app


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the commands write to a terminal of so many columns."""

    def terminal(columns: int) -> None:
        for name, value in (
            ("FORCE_COLOR", "1"),
            ("COLUMNS", str(columns)),
            ("TERM", "dumb-as-can-be"),
            ("NO_COLOR", "1"),
        ):
            monkeypatch.setenv(name, value)

    return terminal


def lines(found: Result) -> list[str]:
    """What is on the terminal."""
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in found.stdout.splitlines()]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("width", [80, 120, 180])
@pytest.mark.parametrize("name", FITS)
def test_an_id_is_whole_or_one_that_commands_take(
    run: Run, terminal: Callable[[int], None], name: str, width: int
) -> None:
    """In one line, without a sign that says that more was there; and no line is longer than the terminal."""
    command, arguments, id_, whole_at = FITS[name]
    terminal(width)
    found = run(command, *arguments)
    shown = lines(found)
    assert max(map(len, shown)) <= width
    assert (SHORT_IDS in found.stderr) == (width not in whole_at)
    words = [word for line in shown for word in line.split()]
    assert (id_ if width in whole_at else id_[:8]) in words
    assert "…" not in found.stdout
    if width not in whole_at:
        assert run(job, id_[:8]).stdout.splitlines()[0].endswith(id_)


def test_the_ids_of_redrives(run: Run, terminal: Callable[[int], None], filled: ConventionsApp) -> None:
    """Their table has the most columns; `--redrive` takes the beginning."""
    id_ = begin(filled, RedriveOrder(Filter(), "u-9", "the bank is back"))
    terminal(80)
    assert id_[:8] in " ".join(lines(run(dead_letters, "redrives"))).split()
    terminal(220)
    assert id_ in " ".join(lines(run(dead_letters, "redrives"))).split()


@pytest.mark.usefixtures("filled")
def test_what_is_no_terminal_has_whole_ids(run: Run) -> None:
    """A script reads them."""
    found = run(jobs, "list")
    assert (WAITS in found.stdout, SHORT_IDS in found.stderr) == (True, False)


@pytest.mark.parametrize("width", [20, 40, 200])
def test_nothing_is_lost(width: int) -> None:
    """Long words go on in the next line; a terminal that is too narrow for its ids breaks them, too."""
    words = {"id": "6d96ffb7-0000-4000-8000-000000000001", "task": "x" * 70, "says": "[bold] 日本"}
    table, is_short = fitted_table(tuple(words), [tuple(words.values())], width)
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    assert not is_short
    assert "…" not in capture.get()
    assert capture.get().count("x") == 70
