"""`celery batch`: what it prints, what it changes and leaves in the audit, and its exit status (R19, R22)."""

import getpass
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
from click.testing import Result

from conventions.app import ConventionsApp
from conventions.batches.batch_state import Origin
from conventions.broker.batch_membership import chunk_id, finish_id
from conventions.cli import batch as batch_module
from conventions.cli.batch import batch
from conventions.cli.dead_letters import dead_letters
from conventions.records import audit
from conventions.storage.tables import AuditRow
from tests.batching import Ending
from tests.workers import messages

TASK = "tests.cli.command_tasks.Import"
FIELDS = {"id", "task", "state", "total", "done", "failed", "chunks", "percent"}
FIGURES = FIELDS | {"actor", "created_at", "updated_at", "rate", "eta", "stalled"}

Run: TypeAlias = Callable[..., Result]
Bury: TypeAlias = Callable[..., None]


def rows(result: Result) -> Any:
    """The JSON of a command that succeeded; nothing else is on standard output."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def deeds(app: ConventionsApp) -> list[AuditRow]:
    """The audit, the oldest first."""
    with app.database.session() as session:
        session.expire_on_commit = False
        return list(reversed(audit.listing(session, 100)))


def begun(app: ConventionsApp, batch_id: str = "b1", *, chunks: int | None = 4, total: int | None = 7) -> Ending:
    """Begin a batch, and cut it unless `chunks` is `None`; ends its messages."""
    app.batches.create(batch_id, Origin(TASK, {"path": "x"}, "u-42"), total)
    if chunks is not None:
        app.batches.note_is_cut(batch_id, chunks=chunks, total=total or 0)
    return Ending(app.store, app.batches, batch_id)


def age(app: ConventionsApp, seconds: float, batch_id: str = "b1") -> None:
    """Let the beginning and the last sign of life of a batch be longer ago."""
    progress = app.store.key("progress", batch_id)
    for name in ("started_at", "updated_at"):
        before = float(app.store.redis.hget(progress, name) or 0)
        app.store.redis.hset(progress, name, str(before - seconds))


@pytest.fixture
def running(commands_app: ConventionsApp) -> str:
    """A batch of seven items in four chunks: the first is done, the second is dead."""
    ending = begun(commands_app)
    ending.chunk(0, "done", 2)
    ending.chunk(1, "dead", 2)
    return "b1"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what happens between two looks of `watch`, one after the other."""

    def looks(*happenings: Callable[[], object]) -> None:
        left = list(happenings)
        monkeypatch.setattr(batch_module, "time", SimpleNamespace(sleep=lambda _: left.pop(0)()))

    return looks


def interrupt() -> None:
    """Press Ctrl-C."""
    raise KeyboardInterrupt


def test_an_empty_listing_is_an_empty_array(run: Run) -> None:
    """With status 0."""
    assert rows(run(batch, "list", "--json")) == []
    assert run(batch, "list").exit_code == 0


def test_list_names_the_fixed_fields(run: Run, running: str, commands_app: ConventionsApp) -> None:
    """The newest first; the percentage is the floor; what is not known is null."""
    begun(commands_app, "b2", chunks=None, total=None)
    newest, oldest = rows(run(batch, "list", "--json"))
    assert set(newest) == FIELDS
    assert (newest["total"], newest["chunks"], newest["percent"]) == (None, None, 0)
    assert oldest == {
        "id": running, "task": TASK, "state": "running", "total": 7, "done": 2, "failed": 2, "chunks": 4, "percent": 28,
    }  # fmt: skip
    assert [row["id"] for row in rows(run(batch, "list", "--json", "--limit", "1"))] == ["b2"]
    assert TASK in run(batch, "list").stdout


def test_list_of_one_state(run: Run, running: str, commands_app: ConventionsApp) -> None:
    """Also of batches that are older than `--limit` others."""
    begun(commands_app, "b2", chunks=None)
    begun(commands_app, "b3")
    commands_app.batches.cancel("b3")

    def found(*options: str) -> list[str]:
        return [row["id"] for row in rows(run(batch, "list", "--json", *options))]

    assert found("--state", "running", "--limit", "1") == [running]
    assert (found("--state", "splitting"), found("--state", "cancelled"), found("--state", "dead")) == (
        ["b2"],
        ["b3"],
        [],
    )
    wrong = run(batch, "list", "--state", "gone")
    assert (wrong.exit_code, wrong.stdout) == (2, "")


def test_show_says_who_when_and_how_fast(run: Run, running: str, commands_app: ConventionsApp) -> None:
    """Moments in UTC, items a second, seconds that are left; and the chunks that are not done."""
    Ending(commands_app.store, commands_app.batches, running).chunk(2, "cancelled", 2)
    shown = rows(run(batch, "show", running, "--json"))
    assert set(shown) == FIGURES | {"failed_chunks", "cancelled_chunks"}
    assert (shown["actor"], shown["failed_chunks"], shown["cancelled_chunks"]) == ("u-42", [1], [2])
    assert shown["stalled"] is False
    assert shown["rate"] > 0
    assert shown["eta"] == pytest.approx(1 / shown["rate"])  # one item of seven is left
    for name in ("created_at", "updated_at"):
        moment = datetime.fromisoformat(shown[name])
        assert moment.utcoffset() == timedelta(hours=9)
        assert abs(datetime.now(UTC) - moment) < timedelta(minutes=5)


def test_show_for_people(run: Run, running: str, commands_app: ConventionsApp) -> None:
    """With the command that shows a dead chunk's letter; a batch that has ended has nothing left to wait for."""
    age(commands_app, 1000)
    lines = run(batch, "show", running).stdout.splitlines()
    fields = {line.partition(" ")[0]: line.partition(" ")[2].strip() for line in lines}
    assert (fields["actor"], fields["stalled"], fields["failed_chunks"]) == ("u-42", "yes", "1")
    assert fields["cancelled_chunks"] == ""
    assert re.fullmatch(r"[\d,.]+/s", fields["rate"])
    assert lines[-1] == f"chunk 1: celery -A tests dead-letters show {chunk_id(running, 1)}"
    commands_app.batches.cancel(running)
    assert rows(run(batch, "show", running, "--json"))["eta"] is None
    assert "\neta              \n" in run(batch, "show", running).stdout


def test_show_of_many_dead_chunks(run: Run, commands_app: ConventionsApp, bury: Bury) -> None:
    """Twenty of them, and a command that finds them all, and no chunk of another batch."""
    ending = begun(commands_app, chunks=25, total=25)
    for index in range(23):
        ending.chunk(index, "dead", 1)
    for id_, index in (("b1", 0), ("b1", 22), ("b2", 0)):
        arguments = {
            "batch_id": id_,
            "chunk_index": index,
            "total_chunks": 25,
            "items": ["c"],
            "arguments": {"path": "x"},
        }
        bury(chunk_id(id_, index), task=f"{TASK}.chunk", arguments=arguments)
    lines = run(batch, "show", "b1").stdout.splitlines()
    assert sum(line.startswith("chunk ") for line in lines) == 20
    said, _, command = lines[-1].partition(": celery -A tests dead-letters ")
    assert said == "and 3 more"
    found = rows(run(dead_letters, *command.split(), "--json"))
    assert {row["id"] for row in found} == {chunk_id("b1", 0), chunk_id("b1", 22)}


@pytest.mark.parametrize(("chunks", "role", "letter"), [(None, "splitter", "b1"), (0, "finish", finish_id("b1"))])
def test_show_of_a_dead_batch(
    run: Run, commands_app: ConventionsApp, chunks: int | None, role: Any, letter: str
) -> None:
    """Names the letter that says why: of its splitter, or of its finish."""
    begun(commands_app, chunks=chunks, total=0).role(role, "dead")
    shown = run(batch, "show", "b1").stdout
    assert re.search(r"^state +dead$", shown, re.MULTILINE)
    assert f"why: celery -A tests dead-letters show {letter}\n" in shown


@pytest.mark.parametrize("command", ["show", "watch", "cancel", "retry-failed"])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_unknown_batch_is_a_no(run: Run, commands_app: ConventionsApp, command: str, options: Sequence[str]) -> None:
    """Status 1, nothing on standard output, nothing in the audit."""
    result = run(batch, command, "nobody", *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nobody" in result.stderr
    assert deeds(commands_app) == []


@pytest.mark.parametrize("command", ["show", "watch", "cancel", "retry-failed"])
def test_wrong_usage(run: Run, command: str) -> None:
    """Status 2: without an id, or with an option that there is not."""
    for arguments in ((), ("b1", "--colour")):
        result = run(batch, command, *arguments)
        assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize(
    ("outcomes", "state", "status"),
    [(["done", "done"], "done", 0), (["done", "dead"], "done", 1), ([], "dead", 1), ([], "cancelled", 1)],
)
def test_watch_ends_with_the_batch(
    run: Run, commands_app: ConventionsApp, looks: Callable[..., None], *, outcomes: list[Any], state: Any, status: int
) -> None:
    """Status 0 when all is done, 1 when items failed or the batch did not get there."""
    ending = begun(commands_app, chunks=2, total=4)
    chunks = [
        lambda index=index, outcome=outcome: ending.chunk(index, outcome, 2) for index, outcome in enumerate(outcomes)
    ]
    end = (
        (lambda: commands_app.batches.cancel("b1")) if state == "cancelled" else (lambda: ending.role("finish", state))
    )
    looks(*chunks, end)
    result = run(batch, "watch", "b1")
    done, failed = 2 * outcomes.count("done"), 2 * outcomes.count("dead")
    assert (result.exit_code, result.stdout) == (status, f"{state}: {done} done, {failed} failed\n")


def test_a_batch_with_dead_chunks_is_not_simply_done(run: Run, commands_app: ConventionsApp) -> None:
    """For people; its state in JSON stays the word."""
    ending = begun(commands_app, chunks=2, total=4)
    ending.chunk(0, "done", 2)
    ending.chunk(1, "dead", 2)
    ending.role("finish", "done")
    assert "done, 2 failed" in run(batch, "list").stdout
    assert "done, 2 failed" in run(batch, "show", "b1").stdout
    assert json.loads(run(batch, "show", "b1", "--json").stdout)["state"] == "done"


def test_watch_as_json(run: Run, commands_app: ConventionsApp, looks: Callable[..., None]) -> None:
    """A line for each change, none for a look that finds nothing new, and the last one tells the end."""
    ending = begun(commands_app, chunks=None, total=None)
    looks(
        lambda: ending.chunk(0, "done", 2),
        lambda: None,
        lambda: commands_app.batches.note_is_cut("b1", chunks=2, total=4),
        lambda: ending.chunk(1, "dead", 2),
        lambda: age(commands_app, 1000),
        lambda: ending.role("finish", "done"),
    )
    result = run(batch, "watch", "b1", "--json")
    assert result.exit_code == 1
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(set(one) == FIGURES for one in told)
    assert [(one["state"], one["total"], one["done"], one["failed"]) for one in told] == [
        ("splitting", None, 0, 0), ("splitting", None, 2, 0), ("running", 4, 2, 0), ("running", 4, 2, 2),
        ("running", 4, 2, 2), ("done", 4, 2, 2),
    ]  # fmt: skip
    again = run(batch, "watch", "b1", "--json").stdout.splitlines()
    assert [json.loads(line) for line in again] == told[-1:], "one that has ended is told once"


def test_what_stands_beside_the_bar(commands_app: ConventionsApp) -> None:
    """Percent, number, speed, rest and what failed; before the total is known there is none of what needs it."""
    ending = begun(commands_app, chunks=None, total=None)

    def words() -> dict[str, str]:
        summary = commands_app.batches.summary("b1", returns=False)
        assert summary is not None
        return batch_module._words(summary)

    ending.chunk(0, "done", 1000)
    found = words()
    assert (found["percent"], found["count"], found["rest"], found["failed"]) == ("", "1,000 done", "", "")
    assert found["speed"].endswith("/s")
    commands_app.batches.note_is_cut("b1", chunks=3, total=4000)
    ending.chunk(1, "dead", 1000)
    found = words()
    assert (found["percent"], found["count"], found["failed"]) == ("25 %", "1,000 of 4,000", "1,000 failed")
    assert found["rest"].endswith(" left")
    age(commands_app, 1000)
    assert words()["rest"] == "stalled"


@pytest.mark.parametrize("total", [None, 4])
def test_watch_draws_a_bar_where_somebody_sees_it(
    run: Run,
    commands_app: ConventionsApp,
    monkeypatch: pytest.MonkeyPatch,
    looks: Callable[..., None],
    total: int | None,
) -> None:
    """On a terminal; without one there is only the last line."""
    monkeypatch.setenv("COLUMNS", "160")
    ending = begun(commands_app, chunks=None, total=total)
    ending.chunk(0, "done", 2)
    looks(lambda: commands_app.batches.cancel("b1"))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    drawn = run(batch, "watch", "b1")
    assert (drawn.exit_code, drawn.stdout) == (1, "cancelled: 2 done, 0 failed\n")
    assert "Import" in drawn.stderr
    assert ("2 done" if total is None else "50 %") in drawn.stderr
    monkeypatch.delenv("TTY_COMPATIBLE")
    assert run(batch, "watch", "b1").stderr == ""


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_watch_is_left_quietly(
    run: Run, running: str, commands_app: ConventionsApp, looks: Callable[..., None], options: Sequence[str]
) -> None:
    """By Ctrl-C, with status 1; the batch goes on."""
    looks(interrupt)
    result = run(batch, "watch", running, *options)
    assert (result.exit_code, result.stderr) == (1, "")
    assert len(result.stdout.splitlines()) == len(options), "what was told before"
    assert commands_app.batches.state(running) == "running"


def test_cancel_stops_a_batch_once(run: Run, running: str, commands_app: ConventionsApp) -> None:
    """With who and why in the audit; what has ended cannot be cancelled: status 1, and nothing is written."""
    done = run(batch, "cancel", running, "--reason", "wrong file")
    assert (done.exit_code, done.stdout) == (0, "b1 is cancelled\n")
    assert commands_app.batches.state(running) == "cancelled"
    (deed,) = deeds(commands_app)
    assert (deed.actor, deed.action, deed.target, deed.reason) == (
        getpass.getuser(), "batch cancel", running, "wrong file",
    )  # fmt: skip
    again = run(batch, "cancel", running)
    assert (again.exit_code, again.stdout) == (1, "b1 has ended before: cancelled\n")
    assert len(deeds(commands_app)) == 1


def test_cancel_as_json(run: Run, running: str, commands_app: ConventionsApp) -> None:
    """And in the name of somebody else."""
    assert rows(run(batch, "cancel", running, "--actor", "u-9", "--json")) == {"id": running, "cancelled": True}
    again = run(batch, "cancel", running, "--json")
    assert (again.exit_code, json.loads(again.stdout)) == (1, {"id": running, "cancelled": False})
    assert [deed.actor for deed in deeds(commands_app)] == ["u-9"]


@pytest.mark.usefixtures("running")
def test_retry_failed_redrives_the_dead_chunks(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Under the chunk's own id; a chunk that is on its way already is not sent twice, and says so by status 1."""
    arguments = {"batch_id": "b1", "chunk_index": 1, "total_chunks": 4, "items": ["c", "d"], "arguments": {"path": "x"}}
    bury(chunk_id("b1", 1), task=f"{TASK}.chunk", arguments=arguments)
    first = run(batch, "retry-failed", "b1", "--reason", "it is back")
    assert (first.exit_code, first.stdout) == (0, "1 of 1 dead letters sent again\n")
    (sent,) = messages(commands_app)
    assert (sent.id, sent.task, sent.arguments) == (chunk_id("b1", 1), f"{TASK}.chunk", arguments)
    (deed,) = deeds(commands_app)
    assert (deed.actor, deed.action, deed.target, deed.reason) == (
        getpass.getuser(), "batch retry-failed", "b1", "it is back",
    )  # fmt: skip
    again = run(batch, "retry-failed", "b1", "--json")
    assert (again.exit_code, json.loads(again.stdout)) == (1, {"id": "b1", "sent": 0, "letters": 1})
    assert len(messages(commands_app)) == 1


def test_retry_failed_without_a_dead_chunk(run: Run, commands_app: ConventionsApp) -> None:
    """Has nothing to do, and writes nothing; also where the batch has ended as done."""
    ending = begun(commands_app, chunks=1, total=2)
    ending.chunk(0, "done", 2)
    ending.role("finish", "done")
    result = run(batch, "retry-failed", "b1")
    assert (result.exit_code, result.stdout) == (1, "b1 has no dead letter\n")
    assert deeds(commands_app) == []
    assert messages(commands_app) == []


def test_candidates_are_tasks_whose_jobs_take_too_long(run: Run, commands_app: ConventionsApp) -> None:
    """With what a person needs to find them; an empty list is one (R5)."""
    assert rows(run(batch, "candidates", "--json")) == []
    for task, seconds in (("a", 61.25), ("b", 70), ("b", 65)):
        commands_app.granularity.note(task, f"{task}-{seconds}", seconds)
    first, second = rows(run(batch, "candidates", "--json"))
    assert (first["task"], first["count"], first["longest_s"], first["last_id"]) == ("b", 2, 70, "b-65")
    assert (second["task"], second["count"], second["longest_s"]) == ("a", 1, 61.25)
    assert first["last_at"].endswith("+09:00")
    assert len(rows(run(batch, "candidates", "--json", "--limit", "1"))) == 1
