"""`celery -A <app> job ID`: what became of a job, for people and as JSON."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from conventions.app import ConventionsApp
from conventions.attempt_log.head_and_tail import Changes
from conventions.attempt_log.live_logs import LiveLogs
from conventions.attempt_log.run_log import RunName
from conventions.cli.job import FIELDS, job
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_rows import RedriveOrder
from conventions.jobs.facts import Facts
from conventions.jobs.history import history
from conventions.recording.log_mover import LogMover
from conventions.records import audit, executions
from conventions.records.audit_entry import AuditEntry
from conventions.records.journal import Event, JournalEntry
from conventions.storage.database import Database
from tests.cli.command_tasks import Send
from tests.cli.conftest import Run
from tests.recorded import FAILURE
from tests.redriving import begin, step


def test_a_job_that_waits(run: Run, commands_app: ConventionsApp) -> None:
    """Why it waits, also that nobody reads its queue."""
    sent = Send.apply_async(kwargs={"user_id": 7, "day": "2026-01-05"}, actor="u-42")
    found = run(job, sent.id)
    assert found.exit_code == 0
    lines = dict(
        line.split(maxsplit=1) for line in found.stdout.splitlines() if not line.startswith(("enqueued", "waits"))
    )
    assert lines == {
        "id": sent.id, "state": "queued", "task": Send.name, "queue": Send.queue_name, "actor": "u-42", "key": lines["key"], "attempts": "0",
        "arguments": '{"user_id": 7, "day": "2026-01-05"}',
    }  # fmt: skip
    why = (
        f"it is the next one of the queue {Send.queue_name}, and no worker of this application runs; no worker consumes"
    )
    assert f"waits because  {why} the queue {Send.queue_name}\n" in found.stdout
    shown = json.loads(run(job, sent.id, "--json").stdout)
    assert tuple(shown) == (*FIELDS, "history", "message", "actions")
    assert shown["history"] == []
    assert shown["message"] == {
        "arguments": {"user_id": 7, "day": "2026-01-05"}, "parent": "", "root": "", "batch": "", "following": [],
        "sealed": False,
    }  # fmt: skip
    assert (shown["state"], shown["result"], shown["progress"]) == ("queued", None, None)
    assert run(job, sent.id, "--wait", "0.1").exit_code == 1


def test_a_job_that_has_ended(run: Run, commands_app: ConventionsApp) -> None:
    """With `--wait` the status says whether it went well; a dead one names the command that shows more."""
    commands_app.journal.append([Event("m1", "dead", task=Send.name, attempt=2, failure=FAILURE, runtime=1.5)])
    commands_app.journal.append([Event("m2", "succeeded", task=Send.name, attempt=1)])
    found = run(job, "m1")
    assert found.exit_code == 0
    assert "error          ValueError\nerror message  no\n" in found.stdout
    assert "runtime        1.500 s\n" in found.stdout
    assert found.stdout.endswith("more           celery -A tests dead-letters show m1\n")
    assert [run(job, id_, "--wait", "5").exit_code for id_ in ("m1", "m2")] == [1, 0]


def keep(app: ConventionsApp, attempt: int, *lines: dict[str, str], ended: bool = True) -> None:
    """Store the lines of a run."""
    texts = {number: json.dumps(line).encode() for number, line in enumerate(lines)}
    name = RunName("m1", 0, attempt, "t")
    assert LiveLogs(app.store).keep(name, Changes(texts, frozenset()), again=False, ended=ended) == "kept"


SAID = {"time": "2026-01-05T00:00:00.123+00:00", "level": "INFO", "logger": "shop", "message": "two\nlines \x1b[1m"}


def test_its_attempts_and_their_logs(run: Run, commands_app: ConventionsApp) -> None:
    """Of Redis and of SQL, also of a run without an outcome; nothing that a terminal obeys."""
    app = commands_app
    known: dict[str, Any] = {"task": Send.name, "token": "t", "worker": "w@h", "release": "r7", "wait": 0.25}
    first = Event("m1", "retried", attempt=1, failure=FAILURE, runtime=1.5, started_at="2026-01-05T00:00:00Z", **known)
    with app.database.session() as session:
        executions.record(session, [JournalEntry(b"1-1", first, 1, datetime(2026, 1, 5, 0, 0, 2, tzinfo=UTC))])
    app.journal.append([Event("m1", "dead", attempt=3, failure=FAILURE, **known)])
    keep(app, 1, SAID | {"exception": "Traceback\nValueError: \x1b"}, {"left_out": 7})  # type: ignore[dict-item]
    LogMover(LiveLogs(app.store), lambda: app.database, lambda: True).move()
    keep(app, 2, SAID, ended=False)
    keep(app, 3, SAID)
    shown = json.loads(run(job, "m1", "--json", "--logs").stdout)["history"]
    assert [(one["attempt"], one["outcome"], len(one["log"])) for one in shown] == [
        (1, "retried", 2),
        (2, None, 1),
        (3, "dead", 1),
    ]
    assert shown[0]["log"] == [
        SAID | {"exception": "Traceback\nValueError: \x1b"},
        {"message": "… 7 lines were left out …", "left_out": 7},
    ]
    names = ("redrive", "worker", "release", "wait", "runtime", "error", "error_message", "fingerprint")
    assert [shown[0][name] for name in names] == [0, "w@h", "r7", 0.25, 1.5, "ValueError", "no", "f" * 16]
    text = run(job, "m1", "--logs").stdout
    said = "    2026-01-05T00:00:00.123+00:00 INFO shop two\\nlines \\x1b[1m\n"
    assert (
        "attempt 1      retried, began 2026-01-05 09:00:00 JST, waited 0.250 s, ran 1.500 s, worker w@h, release r7\n"
        f"    ValueError: no (cause {'f' * 16})\n"
        f"{said}        Traceback\n        ValueError: \\x1b\n"
        "    … 7 lines were left out …\n"
        f"attempt 2      no outcome recorded, began 2026-01-05 09:00:00 JST\n{said}"
        "attempt 3      dead, waited 0.250 s, worker w@h, release r7\n"
    ) in text
    without = run(job, "m1").stdout
    assert said not in without
    assert "attempt 1      retried" in without
    assert "log" not in json.loads(run(job, "m1", "--json").stdout)["history"][0]


def test_what_was_done_to_it(run: Run, commands_app: ConventionsApp) -> None:
    """By whom, when and why, in its order; an end that no attempt of its own brought says so."""
    app = commands_app
    app.journal.append([Event("m1", "revoked", task=Send.name)])
    with app.database.session() as session:
        done = ((1, "edit", None), (0, "redrive", "the bank\nis back"))
        entries = [
            (AuditEntry("u-1", action, "m1", reason), datetime(2026, 1, 5, hour, tzinfo=UTC))
            for hour, action, reason in done
        ]
        audit.record_once(session, entries)
    said = run(job, "m1").stdout
    assert (
        "from outside   revoked\n"
        "done to it     redrive by u-1, 2026-01-05 09:00:00 JST: the bank\\nis back\n"
        "done to it     edit by u-1, 2026-01-05 10:00:00 JST\n"
    ) in said
    shown = json.loads(run(job, "m1", "--json").stdout)["actions"]
    assert [(one["action"], one["actor"], one["reason"]) for one in shown] == [
        ("redrive", "u-1", "the bank\nis back"),
        ("edit", "u-1", None),
    ]


def test_who_redrove_it(run: Run, bury: Callable[..., None], commands_app: ConventionsApp) -> None:
    """With the beginning of the redrive's id, which other commands take, and as JSON with all of it."""
    bury()
    id_ = begin(commands_app, RedriveOrder(Filter(), "u-9", "the bank is back"))
    step(commands_app, id_)
    said = run(job, "m1").stdout
    assert f"done to it     dead-letters redrive {id_[:8]} by u-9, 20" in said
    assert ": the bank is back\n" in said
    (shown,) = json.loads(run(job, "m1", "--json").stdout)["actions"]
    assert (shown["actor"], shown["reason"], shown["redrive"]) == ("u-9", "the bank is back", id_)


def test_its_attempts_while_sql_is_away(run: Run, commands_app: ConventionsApp) -> None:
    """What Redis knows is shown, and that the rest is not; a waiting job never needed SQL."""
    sent = Send.apply_async(kwargs={"user_id": 7, "day": "2026-01-05"})
    commands_app.database = Database("postgresql://app:hunter2@127.0.0.1:1/jobs")
    found = run(job, sent.id, "--logs")
    assert found.exit_code == 0
    assert "state          queued\n" in found.stdout
    assert "what SQL has of it is not shown: OperationalError: " in found.stderr
    assert "hunter2" not in found.output


def test_a_running_attempt_is_listed(run: Run, commands_app: ConventionsApp) -> None:
    """Also where it has logged nothing; and of two runs of one attempt the later one runs."""
    facts = Facts("m1", "running", attempts=2, started_at=datetime(2026, 1, 5, tzinfo=UTC))
    assert [(one.attempt, one.outcome) for one in history(commands_app, facts, logs=True, sql=True)] == [(2, "running")]
    keep(commands_app, 2, SAID | {"time": "2026-01-04T23:59:00+00:00"}, ended=False)
    found = history(commands_app, facts, logs=True, sql=True)
    assert [(one.outcome, len(one.log)) for one in found] == [(None, 1), ("running", 0)], "it is an earlier one"
    keep(commands_app, 2, SAID, ended=False)
    (only,) = history(commands_app, facts, logs=True, sql=True)
    assert (only.outcome, only.started_at, len(only.log)) == ("running", facts.started_at, 1)


def test_a_job_that_nobody_knows(run: Run) -> None:
    """Status 1, and what that may mean."""
    found = run(job, "nothing")
    assert found.exit_code == 1
    assert "state          unknown\n" in found.stdout
    assert "waits because  nothing is known of it" in found.stdout


@pytest.mark.parametrize("arguments", [("",), ("m1", "--wait", "nan"), ("m1", "--wait", "1e300")])
def test_what_cannot_be_asked(run: Run, arguments: tuple[str, ...]) -> None:
    """One line, and status 2."""
    found = run(job, *arguments)
    assert found.exit_code == 2
    assert "Error: " in found.output
