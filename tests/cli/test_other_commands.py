"""`celery explain`, `check`, `cancel`, `messages` and `db`: what they print, and their exit status."""

import getpass
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import celery
import click
import pytest
from click.testing import Result
from sqlalchemy import inspect, make_url, text

from conventions.alerts.alert_store import AlertStore, Message
from conventions.alerts.episode import Episode, Transition
from conventions.alerts.finding import Finding
from conventions.app import ConventionsApp
from conventions.batches.batch_state import Origin
from conventions.cli.alerts import alerts
from conventions.cli.base import emit, print_json
from conventions.cli.cancel import cancel
from conventions.cli.check import check
from conventions.cli.db import db
from conventions.cli.dead_letters import dead_letters
from conventions.cli.explain import explain
from conventions.cli.lost import lost
from conventions.cli.messages import messages
from conventions.cli.now import now
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_status import doubts
from conventions.idempotency.claim_answers import Cancelled
from conventions.idempotency.claims import ClaimRequest
from conventions.metrics.worker_reports import WorkerReports
from conventions.records import audit
from conventions.records.journal import Event, JournalEntry
from conventions.storage.database import Database, utc_now
from conventions.storage.tables import OutboxRow
from tests.claiming import message
from tests.cli.command_tasks import Charge, Send
from tests.crash.server import Server
from tests.failures import record
from tests.recorded import drain, recorder
from tests.workers import application

Run: TypeAlias = Callable[..., Result]

CHARGE = Charge.name  # other test modules may have a task of the same short name


def rows(result: Result, status: int = 0) -> Any:
    """The JSON of a command; nothing else is on standard output."""
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


# explain


def test_explain_shows_the_attempts_and_their_times(run: Run) -> None:
    """Five attempts after 0, 2, 6, 14 and 30 s, without jitter; the last ends as a dead letter (R15)."""
    listed = rows(run(explain, "Send", "ValueError", "--json"))
    assert [set(row) for row in listed] == [{"attempt", "after_s", "from_s", "to_s", "then"}] * 5
    assert [row["attempt"] for row in listed] == [1, 2, 3, 4, 5]
    assert [row["after_s"] for row in listed] == [0, 2, 6, 14, 30]
    assert [(row["from_s"], row["to_s"]) for row in listed] == [(2, 2.5), (3, 5), (6, 10), (12, 20), (None, None)]
    assert listed[-1]["then"].startswith("dead letter")


@pytest.mark.parametrize(
    ("task", "exception", "attempts"),
    [
        ("tests.cli.command_tasks.Send", "ConnectionRefusedError", 10),
        ("Send", "socket.gaierror", 10),
        ("Send", "httpx.ReadTimeout", 10),
        ("Send", "redis.exceptions.ConnectionError", 10),
        ("Send", "BusinessError", 1),
        ("Send", "conventions.core.errors.PayloadError", 1),
        ("Send", "sqlalchemy.exc.OperationalError", 5),
        ("Send", "json.JSONDecodeError", 5),
        ("Send", "UnicodeDecodeError", 5),
        ("Send", "httpx.HTTPStatusError", 5),
        (CHARGE, "ValueError", 2),
        (CHARGE, "KeyError", 1),
        (CHARGE, "TypeError", 1),  # its should_retry says no
        ("Send", "KeyboardInterrupt", 1),
    ],
)
def test_explain_knows_the_kinds_of_errors(run: Run, task: str, exception: str, attempts: int) -> None:
    """Of Python, of libraries, of ours; by the task's own rules (R16)."""
    listed = rows(run(explain, task, exception, "--json"))
    assert len(listed) == attempts
    assert listed[-1]["then"].startswith("dead letter")


@pytest.mark.usefixtures("commands_app")
def test_an_override_may_leave_the_rest_to_the_policy() -> None:
    """`super().should_retry` ends where the policy ends, so that no message is tried for ever."""
    task = Charge.registered
    assert [task.should_retry(ValueError(), made) for made in (1, 2, 3)] == [True, False, False]
    assert not task.should_retry(KeyError(), 1)
    assert task.should_retry(TimeoutError(), 9)
    assert not task.should_retry(TimeoutError(), 10)


@pytest.mark.parametrize(
    ("task", "exception", "named"),
    [
        ("Nothing", "ValueError", "Nothing"),
        ("celery.backend_cleanup", "ValueError", "backend_cleanup"),
        ("Send", "NoSuchError", "NoSuchError"),
        ("Send", "no.such.Error", "no.such.Error"),
        ("Send", "os.path", "os.path"),
        ("Send", "print", "print"),
        ("Send", "..x", "..x"),
    ],
)
def test_explain_of_something_unknown_is_wrong_usage(run: Run, task: str, exception: str, named: str) -> None:
    """Status 2, and the message names it."""
    result = run(explain, task, exception)
    assert (result.exit_code, result.stdout) == (2, "")
    assert named in result.stderr


def test_explain_reads_well(run: Run) -> None:
    """A table for people."""
    assert "dead letter: never retried" in run(explain, "Send", "BusinessError").stdout


# check


CHECKS = [
    "settings", "broker", "redis", "database", "journal", "rejected", "lost", "outbox", "left alone", "unknown tasks", "tasks", "queues",
    "alerts", "schedule", "variables", "clocks", "logins", "keys", "audit", "releases", "versions",
]  # fmt: skip


def test_check_says_that_all_works(run: Run) -> None:
    """A row for each part, status 0."""
    listed = rows(run(check, "--json"))
    assert listed == [{"check": name, "ok": True, "fault": None, "fix": None} for name in CHECKS]
    assert run(check).exit_code == 0


def faults(run: Run, **settings: Any) -> dict[str, str]:
    """What `check` finds wrong with an application with these settings."""
    packages = settings.pop("packages", ["tests.cli.command_tasks"])
    with application(packages, **settings) as app:
        listed = rows(run(check, "--json", app=app), status=1)
    assert [row["check"] for row in listed] == CHECKS
    return {row["check"]: row["fault"] for row in listed if not row["ok"]}


def test_check_says_what_does_not_work(run: Run) -> None:
    """Each part for itself, in one line without a password, status 1."""
    broken = faults(
        run,
        broker_url="redis://:hunter2@127.0.0.1:1",
        broker_timeout=0.3,
        database_url="postgresql://u:hunter2@127.0.0.1:1/x",
    )
    assert set(broken) == {
        "broker",
        "redis",
        "database",
        "journal",
        "rejected",
        "left alone",
        "unknown tasks",
        "queues",
        "alerts",
        "clocks",
        "releases",
        "versions",
    }
    assert all(fault and "\n" not in fault for fault in broken.values())
    assert "hunter2" not in str(broken)


def test_check_says_that_the_outbox_waits(run: Run, commands_app: ConventionsApp) -> None:
    """After a minute: a relay would have taken it."""
    now = utc_now()
    row = OutboxRow(
        id="m1",
        application=commands_app.settings.key_prefix,
        task=CHARGE,
        arguments="{}",
        headers="{}",
        options="{}",
        written_at=now,
        due_at=now,
        tries=0,
    )
    with commands_app.database.session() as session:
        session.add(row)
    assert all(found["ok"] for found in rows(run(check, "--json")))
    with commands_app.database.session() as session:
        session.get_one(OutboxRow, "m1").written_at = now - timedelta(seconds=120)
    (broken,) = [found for found in rows(run(check, "--json"), status=1) if not found["ok"]]
    assert broken["check"] == "outbox"
    assert broken["fault"].startswith("1 messages wait in the outbox, the oldest one for 12")


def test_check_counts_what_sql_cannot_take(run: Run, commands_app: ConventionsApp) -> None:
    """Such an event is an execution that nobody will see."""
    commands_app.store.redis.rpush(commands_app.journal.rejected_key, "one", "two")
    (broken,) = [row for row in rows(run(check, "--json"), status=1) if not row["ok"]]
    assert broken["check"] == "rejected"
    assert broken["fault"].startswith("2 entries of the journal are put aside")
    assert commands_app.journal.rejected_key in broken["fix"]


def test_check_names_queues_that_nobody_consumes(run: Run, commands_app: ConventionsApp) -> None:
    """Where something waits, with status 1; else beside the answer. Delayed messages wait, too."""
    result = run(check)
    assert result.exit_code == 0
    (said,) = [line for line in result.stderr.splitlines() if "; nothing waits there" in line]
    named = said.partition("no worker consumes ")[2].partition(";")[0].split(", ")
    assert {"immediate", "long", "mail", "scheduled"} <= {*named}  # those of tasks that other tests have declared, too
    Send.apply_async((7, date(2026, 1, 5)), countdown=60)
    commands_app.broker.publish([message("m1", "old-name"), message("m2", "old-name")])
    (broken,) = [row for row in rows(run(check, "--json"), status=1) if not row["ok"]]
    assert broken["check"] == "queues"
    assert broken["fault"] == "messages wait in queues that no worker consumes: mail (1), old-name (2)"
    assert broken["fix"] == "start one with -Q"


def test_check_says_what_to_do_about_a_full_server(run: Run, tmp_path: Path, commands_app: ConventionsApp) -> None:
    """In a sentence, not in the server's words; so does what speaks against a redrive."""
    advice = "does not take this now: its memory is full: let workers catch up, or raise maxmemory"
    with Server(tmp_path, maxmemory="100kb") as server:
        broken = faults(run, broker_url=server.url, database_url=str(commands_app.settings.database_url))
        assert broken["broker"] == broken["redis"] == f"Redis {advice}"
        with (
            application(["tests.cli.command_tasks"], broker_url=server.url) as app,
            commands_app.database.session() as session,
        ):
            assert doubts(app, session, Filter(), WorkerReports(app.store).releases) == [f"the broker {advice}"]


def test_check_misses_the_tables(run: Run, commands_app: ConventionsApp, tmp_path: Path) -> None:
    """A database that nobody migrated does not work, and one that is not there is not made by looking."""
    file = tmp_path / "folder" / "none.sqlite3"
    commands_app.database = Database(f"sqlite:///{file}")
    (broken,) = [row for row in rows(run(check, "--json"), status=1) if not row["ok"]]
    assert (broken["check"], broken["fault"]) == (
        "database",
        f"there is no database at {file}; `celery -A … db upgrade` makes it",
    )
    assert not file.parent.exists()
    file.parent.mkdir()
    file.touch()
    (broken,) = [row for row in rows(run(check, "--json"), status=1) if not row["ok"]]
    assert broken["check"] == "database"
    assert "no such table: conventions_dead_letters (did `celery -A … db upgrade` run?)" in broken["fault"]


def test_check_says_that_alerts_do_not_arrive(run: Run, commands_app: ConventionsApp) -> None:
    """Until a receiver takes one again."""
    store = AlertStore(commands_app.store)
    for _ in range(2):
        store.refuse("webhook", "HTTPError: HTTP Error 302: Found", 1_800_000_000.0)
    (broken,) = [row for row in rows(run(check, "--json"), status=1) if not row["ok"]]
    assert (
        broken["check"],
        "webhook has taken no alert" in broken["fault"],
        "2 times in a row" in broken["fault"],
    ) == ("alerts", True, True)
    assert "webhook has taken nothing since 2027-01-15 17:00:00 JST, tried 2 times" in run(alerts, "list").stderr
    shown = run(now)
    assert "alerts do not arrive: webhook has taken nothing since 01-15 17:00:00, tried 2 times" in shown.stdout
    (refusal,) = json.loads(run(now, "--json").stdout)["refusals"]
    assert (refusal["receiver"], refusal["since"], refusal["times"]) == ("webhook", "2027-01-15T17:00:00+09:00", 2)
    store.accept("webhook")
    assert run(check).exit_code == 0
    assert ("do not arrive" in run(now).stdout, json.loads(run(now, "--json").stdout)["refusals"]) == (False, [])


def test_alerts_say_who_was_told(run: Run, commands_app: ConventionsApp) -> None:
    """Of each whether anybody was, and who has not taken it yet; and who is told by the settings."""
    store = AlertStore(commands_app.store)
    at = 1_800_000_000.0
    finding = Finding("backlog", "mail", "warning", "mail has 5,000 ready messages", "add workers", "/queues")
    told = Episode("a", finding, at, fired=at, told=True)
    silent = Episode("b", replace(finding, subject="payments"), at, fired=at)
    body = {"id": "a", "state": "firing", "began": "2027-01-15"}
    messages = [Message(f"a firing {name}", name, body) for name in ("webhook", "mailto 1")]
    episodes = {one.finding.key: one for one in (told, silent)}
    assert store.save("judge", 60.0, episodes, [Transition("resolved", replace(told, id="c", away_since=at))], messages)
    store.sent(messages[1])

    def shown() -> dict[str, tuple[bool, list[str]]]:
        found = json.loads(run(alerts, "list", "--over", "--json").stdout)
        return {one["id"]: (one["told"], one["not_told_yet"]) for one in found}

    assert shown() == {"a": (True, ["webhook"]), "b": (False, []), "c": (True, [])}
    found = run(alerts, "list", "--over")
    (waits, quiet, over) = found.stdout.splitlines()[1:]
    assert ("not yet: webhook" in waits, " no " in quiet, " yes " in over) == (True, True, True)
    assert "there is no receiver: set CONVENTIONS_ALERT_WEBHOOK" in found.stderr
    store.sent(messages[0])
    assert shown()["a"] == (True, [])
    known = replace(silent, came=1.0, known_until=time.time() + 900, finding=replace(silent.finding, threshold=10.0))
    assert store.save("judge", 60.0, {"b": known}, [], [])
    assert " under another name " in run(alerts, "list").stdout
    commands_app.settings = commands_app.settings.model_copy(update={"alert_webhook": "https://ops.example/hook"})
    assert "webhook is told\n" in run(alerts, "list").stderr


def test_check_sees_tables_of_an_older_release(run: Run, commands_app: ConventionsApp) -> None:
    """As where new workers start before `db upgrade` has run: it names what is missing."""
    assert run(check).exit_code == 0
    with commands_app.database.session() as session:
        session.execute(text("ALTER TABLE conventions_executions DROP COLUMN wait"))
        session.execute(text("DROP TABLE conventions_attempt_logs"))
    (broken,) = [row for row in rows(run(check, "--json"), status=1) if not row["ok"]]
    assert broken["check"] == "database"
    assert "lack conventions_executions.wait, conventions_attempt_logs:" in broken["fault"]
    assert "run `celery -A <app> db upgrade`" in broken["fix"]


@pytest.mark.parametrize("command", [(dead_letters, "groups"), (dead_letters, "list"), (lost,)])
def test_a_database_that_is_not_there_is_not_made_by_looking(
    run: Run, commands_app: ConventionsApp, tmp_path: Path, command: tuple[Any, ...]
) -> None:
    """One line says so, and what makes it."""
    file = tmp_path / "folder" / "none.sqlite3"
    commands_app.database = Database(f"sqlite:///{file}")
    result = run(*command)
    assert result.exit_code == 2
    assert f"there is no database at {file}; `celery -A … db upgrade` makes it" in result.output
    assert not file.parent.exists()


@pytest.mark.thorough
def test_check_names_a_database_that_takes_no_writes(
    run: Run, commands_app: ConventionsApp, bury: Callable[..., None], postgres_url: str
) -> None:
    """As a standby in a fail-over; other commands do not ask for a migration then."""
    commands_app.database = Database(postgres_url)
    commands_app.database.upgrade()
    bury()
    assert run(check).exit_code == 0
    commands_app.database.dispose()
    address = make_url(postgres_url).update_query_dict({"options": "-c default_transaction_read_only=on"})
    commands_app.database = Database(address.render_as_string(hide_password=False))
    (broken,) = [row for row in rows(run(check, "--json"), status=1) if not row["ok"]]
    assert broken["check"] == "database"
    assert broken["fault"].startswith("the database takes no writes, so nothing is recorded: it is a standby, or")
    result = run(dead_letters, "discard", "m1", "--reason", "of no use", "--yes")
    assert result.exit_code == 2
    assert "in a read-only transaction (look at the server)" in result.stderr


def test_check_names_a_broken_task_module(
    run: Run, commands_app: ConventionsApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the module and the line."""
    (tmp_path / "broken_tasks.py").write_text("\n\nraise ValueError('at import')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    settings = commands_app.settings.model_dump(include={"broker_url", "database_url", "key_prefix"})
    broken = faults(run, packages=["broken_tasks"], **settings)
    assert set(broken) == {"tasks"}
    assert "broken_tasks" in broken["tasks"]
    assert "line 3" in broken["tasks"]


def test_check_names_what_is_wrong_with_the_schedule(
    run: Run, commands_app: ConventionsApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, with the schedule's name; a schedule that can be loaded is all right."""
    text = (
        "from conventions import Schedule, cron, planned_date\n"
        "from tests.cli.command_tasks import Send\n\n"
        "ARGUMENTS = {'user_id': 7, 'day': planned_date}\n"
        "GOOD = [Schedule('daily', cron('0 9 * * *'), Send, ARGUMENTS)]\n"
        "TWICE = GOOD * 2\n"
    )
    (tmp_path / "checked_schedule.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(commands_app, "_schedule", "checked_schedule:TWICE")
    (broken,) = [row for row in rows(run(check, "--json"), status=1) if not row["ok"]]
    assert broken["check"] == "schedule"
    assert '2 schedules are called "daily"' in broken["fault"]
    assert "\n" not in broken["fault"]
    monkeypatch.setattr(commands_app, "_schedule", "checked_schedule:GOOD")
    assert {"check": "schedule", "ok": True, "fault": None, "fix": None} in rows(run(check, "--json"))


def test_check_reports_every_fault_of_the_settings(run: Run) -> None:
    """A wrong configuration is reported whole."""
    text = faults(run, lease=0, concurrency=0, broker_url="redis://127.0.0.1:1")["settings"]
    assert "CONVENTIONS_LEASE" in text
    assert "CONVENTIONS_CONCURRENCY" in text


# cancel


def test_cancel_keeps_a_message_from_running(run: Run, commands_app: ConventionsApp) -> None:
    """Whoever takes the message finds that it must not run; one that is not there is too late."""
    message = Send.apply_async(kwargs={"user_id": 1, "day": date(2026, 1, 31)}, countdown=3600)
    result = run(cancel, message.id)
    assert (result.exit_code, "will not run" in result.output) == (0, True)
    request = ClaimRequest(Send.name, "k", token="t", message_id=message.id, fingerprint="f")
    assert commands_app.claims.take([request]) == [Cancelled()]
    result = run(cancel, "another", "--actor", "u-9", "--reason", "why not")
    assert (result.exit_code, "too late" in result.output) == (1, True)
    drain(recorder(commands_app.store, commands_app.database))
    with commands_app.database.session() as session:
        found = {one.target: (one.actor, one.action, one.reason, one.after) for one in audit.listing(session, 9)}
    assert found == {
        message.id: (getpass.getuser(), "cancel", None, {"outcome": "done", "answer": "queued"}),
        "another": ("u-9", "cancel", "why not", {"outcome": "failed", "answer": "too late"}),
    }


def test_no_batch_is_ended_by_force(run: Run, commands_app: ConventionsApp) -> None:
    """Its chunks are jobs of their own."""
    commands_app.batches.create("b1", Origin("tests.cli.command_tasks.Import", {"path": "x"}, "u-42"))
    result = run(cancel, "b1", "--force", "--reason", "x")
    assert (result.exit_code, "it is a batch: name one of its chunks" in result.stderr) == (2, True)
    assert commands_app.batches.state("b1") != "cancelled"
    assert run(cancel, "b1").stdout == "b1: running; it is told at its next report of progress\n"
    assert commands_app.batches.state("b1") == "cancelled"


@pytest.mark.parametrize(
    "arguments",
    [
        (cancel, "m1"),
        (messages, "list"),
        (messages, "count"),
        (messages, "cancel", "--task", "Send", "--reason", "x"),
        (messages, "move", "--task", "Send", "--to", "mail", "--reason", "x"),
    ],
)
def test_what_waits_needs_redis(run: Run, arguments: tuple[Any, ...]) -> None:
    """Status 2 and one line when it is away."""
    with application(["tests.cli.command_tasks"], broker_url="redis://127.0.0.1:1", database_url="sqlite://") as app:
        result = run(*arguments, app=app)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Redis" in result.stderr
    assert "Traceback" not in result.stderr


# db


def test_upgrade_makes_the_tables(run: Run, commands_app: ConventionsApp, tmp_path: Path) -> None:
    """A new file, then nothing to do."""
    commands_app.database = Database(f"sqlite:///{tmp_path / 'new' / 'x.sqlite3'}")
    for _ in range(2):
        result = run(db, "upgrade")
        assert result.exit_code == 0
        assert "x.sqlite3" in result.stdout
    assert "conventions_dead_letters" in inspect(commands_app.database.engine).get_table_names()


def test_upgrade_of_a_server_that_is_away_is_one_line_without_password(run: Run, commands_app: ConventionsApp) -> None:
    """Status 2."""
    commands_app.database = Database("postgresql://app:hunter2@127.0.0.1:1/jobs")
    result = run(db, "upgrade")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "refused" in result.stderr
    assert "hunter2" not in result.stderr
    assert "Traceback" not in result.stderr


# what they share


@pytest.mark.parametrize(
    "arguments", [(db, "upgrade"), (dead_letters, "list"), (check,), (cancel, "m1"), (explain, "Send", "ValueError")]
)
def test_an_application_that_is_not_ours_is_wrong_usage(
    run: Run, arguments: tuple[click.Command, *tuple[str, ...]]
) -> None:
    """A plain Celery application has none of this."""
    with celery.Celery("plain", set_as_current=False) as plain:
        result = run(*arguments, app=plain)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "create_app" in result.stderr


def test_what_is_no_json_is_an_error() -> None:
    """Nothing is silently turned into text."""
    with pytest.raises(TypeError, match="object is not JSON"):
        print_json({"a": object()})


@pytest.mark.parametrize("text", ["[red]no markup[/red]", "[/no] [tag]", "list[int]"])
def test_a_table_shows_texts_as_they_are(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Brackets in an error's message are neither a color nor the end of the command."""
    emit([{"a": 1, "b": text}], ("a", "b"), as_json=False)
    assert text in capsys.readouterr().out


# lost


def test_lost_jobs_are_listed_and_checked(run: Run, commands_app: ConventionsApp) -> None:
    """With what is needed to send them again; `check` says how many there are."""
    assert rows(run(lost, "--json")) == []
    event = Event("m1", "lost", task=CHARGE, queue="immediate", actor="u-7", key="k", attempt=2, token="t")
    record(commands_app.database, JournalEntry(b"1-1", event, 0, utc_now()))
    (found,) = rows(run(lost, "--json"))
    assert (found["message_id"], found["task"], found["actor"], found["attempt"]) == ("m1", CHARGE, "u-7", 2)
    assert "m1" in run(lost).output
    checked = {row["check"]: row for row in rows(run(check, "--json"), status=1)}
    assert checked["lost"]["fault"].startswith("1 jobs were lost")
