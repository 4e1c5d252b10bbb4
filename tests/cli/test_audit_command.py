"""`celery audit list`: what ran and what people did, as a table, as JSON and as CSV (R22)."""

import csv
import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import Result

from conventions.app import ConventionsApp
from conventions.cli.audit import audit
from conventions.records import audit as audit_rows
from conventions.records.audit_entry import AuditEntry
from conventions.records.audit_listing import FIELDS, PAGE
from conventions.storage.database import utc_now
from conventions.storage.redis_store import Store
from tests.failures import failure, record
from tests.workers import application

Run: TypeAlias = Callable[..., Result]
TASK = "tests.cli.command_tasks.Send"


def rows(result: Result) -> Any:
    """The JSON of a command that succeeded; nothing else is on standard output."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def incident(commands_app: ConventionsApp) -> datetime:
    """A job that was tried twice, one of another task, and two actions. Returns the present moment."""
    now = utc_now()
    error = ValueError("no such mail\nat all")
    jobs: list[dict[str, Any]] = [
        {"message_id": "m1", "kind": "retried", "attempts": 1, "at": now - timedelta(hours=3)},
        {"message_id": "m1", "kind": "dead", "attempts": 2, "at": now - timedelta(hours=1)},
        {"message_id": "m2", "kind": "succeeded", "failure": None, "task": "other.Task", "queue": "long", "actor": "u-7",
         "worker": "w2", "runtime": 0.25, "at": now - timedelta(minutes=10)},
    ]  # fmt: skip
    usual: dict[str, Any] = {"task": TASK, "worker": "w1", "attempts": 1}
    for values in jobs:
        record(commands_app.database, failure(error=error, **usual | values))
    with commands_app.database.session() as session:
        audit_rows.record_once(
            session,
            [
                (AuditEntry("ops", "schedule pause", "nightly", "the file moves", None, {"until": None}), now - timedelta(hours=2)),
                (AuditEntry("u-7", "dead-letters edit", "m1", None, {"n": 1}, {"n": 2}), now - timedelta(minutes=5)),
            ],
        )  # fmt: skip
    return now


def test_nothing_is_an_empty_array(run: Run) -> None:
    """With status 0; CSV has its head alone."""
    assert rows(run(audit, "list", "--json")) == []
    assert run(audit, "list").stdout == "nothing found\n"
    assert run(audit, "list", "--csv").stdout == ",".join(FIELDS) + "\n"


def test_both_kinds_newest_first(run: Run, incident: datetime) -> None:
    """One object for each, with fixed fields, and times in the zone of the settings."""
    found = rows(run(audit, "list", "--json"))
    assert [(row["of"], row["id"] or row["target"], row["actor"]) for row in found] == [
        ("action", "m1", "u-7"), ("execution", "m2", "u-7"), ("execution", "m1", "u-42"), ("action", "nightly", "ops"),
        ("execution", "m1", "u-42"),
    ]  # fmt: skip
    assert {tuple(row) for row in found} == {FIELDS}
    assert datetime.fromisoformat(found[0]["at"]) == incident - timedelta(minutes=5)
    assert found[0]["at"].endswith("+09:00")
    assert (found[1]["outcome"], found[1]["runtime"], found[1]["attempt"]) == ("succeeded", 0.25, 1)
    assert (found[2]["outcome"], found[2]["error"], found[2]["attempt"]) == ("dead", "ValueError", 2)
    assert (found[0]["before"], found[0]["after"]) == ({"n": 1}, {"n": 2})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--of", "executions"), ["m2", "m1", "m1"]),
        (("--of", "actions"), ["m1", "nightly"]),
        (("--actor", "u-7"), ["m1", "m2"]),
        (("--task", "Send"), ["m1", "m1"]),
        (("--task", TASK, "--outcome", "dead"), ["m1"]),
        (("--queue", "long"), ["m2"]),
        (("--id", "m1"), ["m1", "m1", "m1"]),
        (("--action", "schedule"), ["nightly"]),
        (("--worker", "w2"), ["m2"]),
        (("--since", "90m"), ["m1", "m2", "m1"]),
        (("--until", "90m"), ["nightly", "m1"]),
        (("--since", "150m", "--until", "30m"), ["m1", "nightly"]),
        (("--limit", "1"), ["m1"]),
    ],
)
def test_filters(run: Run, incident: datetime, options: tuple[str, ...], expected: list[str]) -> None:
    """Each of them; all must match. CSV has the same rows."""
    assert incident
    found = rows(run(audit, "list", "--json", *options))
    assert [row["id"] or row["target"] for row in found] == expected
    written = [*csv.DictReader(io.StringIO(run(audit, "list", "--csv", *options).stdout))]
    assert [row["id"] or row["target"] for row in written] == expected


def test_a_time_without_a_zone_is_one_of_the_settings(run: Run, commands_app: ConventionsApp) -> None:
    """As people read it on the pages."""
    record(commands_app.database, failure("m1", at=datetime.fromisoformat("2026-11-25T00:30:00+00:00")))
    for since, expected in (("2026-11-25T09:30", 1), ("2026-11-25T09:31", 0), ("2026-11-25T00:31Z", 0)):
        assert len(rows(run(audit, "list", "--json", "--since", since))) == expected, since


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--task", "Send", "--action", "cancel"), "--task finds executions, --action finds actions of people"),
        (("--of", "actions", "--worker", "w1"), "--worker finds executions, and --of says actions"),
        (("--of", "executions", "--action", "cancel"), "--action finds actions of people, and --of says executions"),
        (("--since", "1h", "--until", "2h"), "--since is not before --until"),
        (("--since", "soon"), "--since: 'soon' is no time: write it like 2026-11-25T09:00"),
        (("--until", "2026-13-01"), "--until: '2026-13-01' is no time"),
        (("--outcome", "fine"), "'fine' is not one of 'succeeded'"),
        (("--of", "jobs"), "'jobs' is not one of 'all'"),
        (("--json", "--csv"), "--json or --csv, not both"),
    ],
)
def test_what_cannot_be_asked(run: Run, options: tuple[str, ...], words: str) -> None:
    """Is wrong usage, and says why."""
    result = run(audit, "list", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_the_table_says_all_of_it(run: Run, incident: datetime) -> None:
    """An action shows who, why and what it changed; an execution its outcome and its error."""
    assert incident
    text = run(audit, "list").stdout
    for words in ("schedule pause", "the file moves", "{'n': 1} -> {'n': 2}", "other.Task", "ValueError: no such mail", "0.250 s", "JST"):  # fmt: skip
        assert words in text, words


def test_csv_has_every_row(run: Run, commands_app: ConventionsApp) -> None:
    """Not only as many as a listing shows; with `--limit` so many."""
    number = 2 * PAGE + 1
    with commands_app.database.session() as session:
        now = utc_now()
        audit_rows.record_once(session, [(AuditEntry("ops", "cancel", f"m{one}"), now) for one in range(number)])
    found = [*csv.DictReader(io.StringIO(run(audit, "list", "--csv").stdout))]
    assert len({row["target"] for row in found}) == len(found) == number
    assert len(run(audit, "list", "--csv", "--limit", "3").stdout.splitlines()) == 4


def test_a_row_that_nobody_can_read(run: Run, commands_app: ConventionsApp, incident: datetime) -> None:
    """The others are shown, and the error output says which one is not."""
    assert incident
    with commands_app.database.session() as session:
        session.connection().exec_driver_sql("UPDATE conventions_audit SET before = '{' WHERE target = 'nightly'")
    for form in ("--json", "--csv"):
        found = run(audit, "list", form)
        assert ("nightly" in found.stdout, found.stdout.count("m1"), found.exit_code) == (False, 3, 0)
        assert "cannot be read, since somebody has written it so, and is left out: see `audit verify`" in found.stderr


def test_no_row_steers_a_terminal_or_a_spreadsheet(run: Run, commands_app: ConventionsApp) -> None:
    """Whoever has written it."""
    evil = "\x1b]0;owned\x07"
    record(commands_app.database, failure("m1", ValueError(f"@SUM(1+1){evil}"), actor=f"={evil}"))
    with commands_app.database.session() as session:
        audit_rows.record(session, AuditEntry("-1+1", "cancel", "+m1", f"={evil}", None, {"a": "=1"}))
    for options in ((), ("--json",), ("--csv",)):
        shown = run(audit, "list", *options).stdout
        assert not {"\x1b", "\x07"}.intersection(shown), options
        assert "owned" in shown
    action, execution = csv.DictReader(io.StringIO(run(audit, "list", "--csv").stdout))
    assert (action["actor"], action["target"], action["reason"][:2]) == ("'-1+1", "'+m1", "'=")
    assert json.loads(action["after"]) == {"a": "=1"}
    assert (execution["actor"][:2], execution["error_message"][:2], execution["attempt"]) == ("'=", "'@", "5")


def test_what_is_not_recorded_yet_is_said(run: Run, commands_app: ConventionsApp) -> None:
    """On standard error."""
    commands_app.journal.note(AuditEntry("ops", "cancel", "m1"))
    result = run(audit, "list", "--json")
    assert (rows(result), result.stderr) == ([], "not recorded yet: 1 event\n")


def test_a_database_that_is_not_there(run: Run, tmp_path: Path, store: Store) -> None:
    """Is one line and status 2, and no file is made."""
    missing = tmp_path / "none.sqlite3"
    with application(broker_url=store.url, key_prefix=store.prefix, database_url=f"sqlite:///{missing}") as other:
        result = run(audit, "list", "--csv", app=other)
    assert (result.exit_code, result.stdout, "db upgrade" in result.stderr) == (2, "", True)
    assert not missing.exists()
