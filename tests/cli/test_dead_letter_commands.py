"""`celery dead-letters`: found, shown, sent again or given up, and its exit status (R18)."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import pytest
from click.testing import Result

from conventions.app import ConventionsApp
from conventions.cli.dead_letters import dead_letters
from conventions.core.errors import BusinessError
from conventions.records.journal import Event, Journal
from conventions.storage import database
from conventions.storage.database import Database
from conventions.storage.tables import DeadLetterRow
from tests.workers import application

FIELDS = {
    "id", "task", "queue", "error", "error_message", "fingerprint", "attempts", "actor", "state",
    "first_failed_at", "last_failed_at",
}  # fmt: skip

Run: TypeAlias = Callable[..., Result]
Bury: TypeAlias = Callable[..., None]


def rows(result: Result) -> Any:
    """The JSON of a command that succeeded; nothing else is on standard output."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("listing", ["list", "groups"])
def test_an_empty_listing_is_an_empty_array(run: Run, listing: str) -> None:
    """With status 0; people read a sentence."""
    assert rows(run(dead_letters, listing, "--json")) == []
    empty = run(dead_letters, listing)
    assert (empty.exit_code, empty.stdout) == (0, "nothing found\n")


def test_list_names_the_fixed_fields(run: Run, bury: Bury) -> None:
    """One object for each letter, the newest first."""
    bury("m1")
    bury("m2", BusinessError("no é"), attempts=1, task=None, queue=None)
    newest, oldest = rows(run(dead_letters, "list", "--json"))
    assert set(newest) == set(oldest) == FIELDS
    assert newest | {"fingerprint": "", "first_failed_at": "", "last_failed_at": ""} == {
        "id": "m2", "task": None, "queue": None, "error": "BusinessError", "error_message": "no é", "fingerprint": "",
        "attempts": 1, "actor": "u-42", "state": "dead", "first_failed_at": "", "last_failed_at": "",
    }  # fmt: skip
    assert datetime.fromisoformat(oldest["last_failed_at"]).utcoffset() == timedelta(hours=9)


def test_list_filters_and_limits(run: Run, bury: Bury) -> None:
    """By each field; all of them must match."""
    for number in range(3):
        bury(f"s{number}")
    bury("k", KeyError("k"), queue="long", task="tests.cli.command_tasks.Charge")
    fingerprint = rows(run(dead_letters, "list", "--json", "--queue", "long"))[0]["fingerprint"]
    for options, expected in {
        ("--task", "tests.cli.command_tasks.Send"): ["s2", "s1", "s0"],
        ("--queue", "long"): ["k"],
        ("--error", "KeyError"): ["k"],
        ("--group", fingerprint): ["k"],
        ("--error", "KeyError", "--queue", "mail"): [],
        ("--state", "redriven"): [],
        ("--limit", "2"): ["k", "s2"],
    }.items():
        assert [row["id"] for row in rows(run(dead_letters, "list", "--json", *options))] == expected, options


def test_no_letter_steers_the_terminal(run: Run, bury: Bury) -> None:
    """Not by its error, its arguments or its actor; a traceback keeps its lines."""
    evil = "\x1b]0;owned\x07 \u202e\x9b31m"
    bury("m1", ValueError(f"{evil}\nforged"))
    for words in (("list",), ("list", "--json"), ("groups",), ("show", "m1"), ("show", "m1", "--json"), ("export",)):
        shown = run(dead_letters, *words).output
        assert not {"\x1b", "\x07", "\u202e", "\x9b"}.intersection(shown), words
        assert "owned" in shown
    assert "ValueError: \\x1b]0;owned" in run(dead_letters, "show", "m1").output


def test_the_table_is_not_cut(run: Run, bury: Bury) -> None:
    """An id that is cut cannot be copied."""
    long_id = "0" * 36
    bury(long_id, ValueError("a text " * 8))
    shown = run(dead_letters, "list").stdout
    assert long_id in shown
    assert "tests.cli.command_tasks.Send" in shown


def test_groups_names_the_fixed_fields(run: Run, bury: Bury) -> None:
    """One object for each cause, the largest group first."""
    bury("k", KeyError("k"))
    bury("s1")
    bury("s2")
    largest, other = rows(run(dead_letters, "groups", "--json"))
    assert set(largest) == set(other) == {
        "fingerprint", "task", "error", "error_message", "count", "first_seen", "last_seen", "example", "place",
        "note", "releases",
    }  # fmt: skip
    assert (largest["count"], largest["error"], other["count"], other["example"]) == (2, "ValueError", 1, "k")
    assert largest["example"] in ("s1", "s2")
    assert len(rows(run(dead_letters, "groups", "--json", "--limit", "1"))) == 1
    shown = run(dead_letters, "groups")
    assert "ValueError" in shown.stdout
    assert "count: letters that are dead now; first seen: the first failure of any of these" in shown.stderr
    assert "letters that are dead now" not in run(dead_letters, "groups", "--json").stderr


def test_groups_and_letters_name_their_releases(run: Run, bury: Bury) -> None:
    """By which release they died, where it is known: a mapping for scripts, words for people."""
    bury("s1", release="r1")
    bury("s2", release="r1")
    bury("s3", release="r2")
    bury("k", KeyError("k"))
    largest, other = rows(run(dead_letters, "groups", "--json"))
    assert (largest["releases"], other["releases"]) == ({"r1": 2, "r2": 1}, {})
    assert "r1 2, r2 1" in run(dead_letters, "groups").stdout
    shown = [rows(run(dead_letters, "show", one, "--json")) for one in ("s3", "k")]
    assert [(one["release"], one["history"][0]["release"]) for one in shown] == [("r2", "r2"), (None, None)]
    assert "release          r2\n" in run(dead_letters, "show", "s3").stdout


def test_show_gives_everything(run: Run, bury: Bury) -> None:
    """One object, with payload, headers, message, history and traceback."""
    bury(kind="retried", error=KeyError("first"), attempts=1)
    bury(
        attempts=2,
        stored=b'{"body": "W10=", "headers": {"id": "m1", "name": "\xc3\xa9"}}',
        worker="w@host",
        runtime=0.5,
    )
    shown = rows(run(dead_letters, "show", "m1", "--json"))
    more = {"generation", "redrive_id", "arguments", "headers", "message", "history", "traceback", "audit", "release"}
    assert set(shown) == FIELDS | more
    assert shown["arguments"] == {"user_id": 7, "day": "2026-01-05"}
    assert shown["headers"]["x_key"] == "the-key"
    assert shown["message"] == {"body": "W10=", "headers": {"id": "m1", "name": "é"}}
    assert [(one["attempt"], one["kind"], one["error"]) for one in shown["history"]] == [
        (1, "retried", "KeyError"),
        (2, "dead", "ValueError"),
    ]
    assert shown["first_failed_at"] == shown["history"][0]["ended_at"] < shown["last_failed_at"]
    assert set(shown["history"][1]) == {
        "generation", "attempt", "kind", "error", "error_message", "traceback", "ended_at", "worker", "release",
        "runtime",
    }  # fmt: skip
    assert "ValueError: it broke" in shown["traceback"]


def test_show_is_plain_for_people(run: Run, bury: Bury) -> None:
    """A line for each field, the message as it is, a table of the failed attempts, the last traceback."""
    bury(kind="retried", error=KeyError("first"), attempts=1)
    bury(attempts=2, stored=b'{"body": "W10="}')
    shown = run(dead_letters, "show", "m1")
    lines = shown.stdout.rstrip().splitlines()
    assert 'message          {"body": "W10="}' in lines
    first = next(line for line in lines if line.startswith("first_failed_at"))
    assert first.endswith(" JST"), "the zone of the settings, with its name"
    assert " JST" in run(dead_letters, "list").stdout
    assert any(line.split()[:3] == ["1", "retried", "KeyError"] for line in lines)
    assert lines[-1] == "ValueError: it broke"
    assert shown.stderr == ""


@pytest.mark.parametrize(
    "arguments", [("list",), ("list", "--json"), ("groups", "--json"), ("show", "m1"), ("show", "m1", "--json")]
)
def test_it_says_what_is_not_recorded_yet(
    run: Run, bury: Bury, commands_app: ConventionsApp, arguments: tuple[str, ...]
) -> None:
    """On standard error, so that JSON stays JSON; nothing when all of it is recorded."""
    bury()
    assert run(dead_letters, *arguments).stderr == ""
    journal = Journal(commands_app.store)
    for expected in ("not recorded yet: 1 event\n", "not recorded yet: 2 events\n"):
        journal.append([Event("m2", "dead")])
        result = run(dead_letters, *arguments)
        assert (result.exit_code, result.stderr) == (0, expected)
        assert not result.stdout.startswith("not recorded")


def test_letters_are_listed_without_redis(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """They are in SQL; one line says that there may be more."""
    bury()
    url = commands_app.settings.database_url
    with application(["tests.cli.command_tasks"], broker_url="redis://127.0.0.1:1", database_url=url) as away:
        listed = run(dead_letters, "list", "--json", app=away)
    assert [row["id"] for row in rows(listed)] == ["m1"]
    assert listed.stderr == "Redis cannot be reached: there may be events that are not recorded yet\n"


def test_show_of_an_unknown_letter_is_a_no(run: Run) -> None:
    """Status 1, nothing on standard output."""
    result = run(dead_letters, "show", "nobody", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nobody" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("list", "--state", "alive"), ("list", "--limit", "0"), ("list", "extra"), ("show",), ("redrive",), ("discard",)],
)
def test_wrong_usage_is_status_2(run: Run, arguments: tuple[str, ...]) -> None:
    """As click says it, on standard error."""
    result = run(dead_letters, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_database_without_tables_says_what_to_run(run: Run, tmp_path: Any, commands_app: ConventionsApp) -> None:
    """Status 2 and one line, not a traceback."""
    commands_app.database = Database(f"sqlite:///{tmp_path / 'empty.sqlite3'}")
    result = run(dead_letters, "list", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "db upgrade" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_listing_does_not_wait_for_a_job_s_transaction(
    run: Run, bury: Bury, commands_app: ConventionsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks must not be locked out while a job writes."""
    bury()
    monkeypatch.setattr(database, "SQLITE_BUSY_TIMEOUT", 200)
    commands_app.database.dispose()
    other = Database(str(commands_app.settings.database_url))
    with other.session() as session:
        session.get_one(DeadLetterRow, "m1").state = "redriven"
        session.flush()
        listed = run(dead_letters, "list", "--json")
    other.dispose()
    assert [row["id"] for row in rows(listed)] == ["m1"]


def test_no_letter_breaks_a_list(run: Run, bury: Callable[..., None]) -> None:
    """Whatever a message of another program held: half characters are escapes where people read them, and whole in the export."""
    odd = {"half": "a\ud800", "nul": "a\0", "\udfff": [1]}
    bury(
        "odd",
        arguments=odd,
        headers={"x_key": "\ud800"},
        stored=json.dumps({"body": "\ud800", "headers": {"a": odd}}).encode(),
    )
    bury("fine")
    for arguments in (["list"], ["list", "--json"], ["groups"], ["show", "odd"], ["show", "odd", "--json"], ["export"]):
        found = run(dead_letters, *arguments)
        assert found.exit_code == 0, arguments
        assert "odd" in found.stdout or arguments == ["groups"]
    (exported,) = [
        one for line in run(dead_letters, "export").stdout.splitlines() if (one := json.loads(line))["id"] == "odd"
    ]
    assert exported["arguments"] == odd
