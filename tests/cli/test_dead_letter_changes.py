"""`celery dead-letters edit | redrive | discard | note | export | redrives | stop`, and what each leaves behind (R18, R22)."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias

import pytest
from click.testing import Result

from conventions import Priority
from conventions.app import ConventionsApp
from conventions.cli import dead_letter_changes as changes
from conventions.cli.dead_letters import dead_letters
from conventions.console import argument_editor
from conventions.core.error_text import describe
from conventions.core.errors import IdempotencyConflict
from conventions.dead_letters import redrive_rows
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_pace_and_stop import OPEN
from conventions.dead_letters.redrive_sender import Redriver
from conventions.idempotency.claims import ClaimRequest, Settlement
from conventions.idempotency.key import idempotency_key
from conventions.metrics import worker_reports
from conventions.metrics.worker_reports import WorkerReport, WorkerReports
from conventions.recording.recorder import Recorder
from conventions.records import audit
from conventions.records.journal import Event
from conventions.storage.database import utc_now
from conventions.storage.tables import AuditRow, DeadLetterRow
from tests.cli.command_tasks import Remark, Send
from tests.redriving import step
from tests.stored_messages import stored
from tests.workers import application, messages

Run: TypeAlias = Callable[..., Result]
Bury: TypeAlias = Callable[..., None]
Asked: TypeAlias = Callable[[Callable[[], object]], None]


def letter(app: ConventionsApp, message_id: str = "m1") -> DeadLetterRow:
    """One letter, readable after its session."""
    with app.database.session() as session:
        session.expire_on_commit = False
        return session.get_one(DeadLetterRow, message_id)


def deeds(app: ConventionsApp) -> list[AuditRow]:
    """The audit, the oldest first."""
    with app.database.session() as session:
        session.expire_on_commit = False
        return list(reversed(audit.listing(session, 100)))


def sent(app: ConventionsApp) -> list[Any]:
    """The messages that were sent again."""
    return [one for one in messages(app) if one.queue != "long"]


def started(run: Run, *arguments: str) -> str:
    """Start a redrive; returns its id."""
    result = run(dead_letters, "redrive", *arguments, "--yes", "--no-wait", "--actor", "u-9")
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


class Drive:
    """What carries a redrive out, step by step, and workers that end what was sent as they are told."""

    def __init__(self, app: ConventionsApp, id: str) -> None:  # noqa: A002
        self.app, self.id = app, id
        self.redriver = Redriver(app, "the test", lambda: True)
        self.ended: set[str] = set()

    def step(self) -> bool:
        """One step; false once it has ended."""
        step(self.app, self.id, self.redriver)
        row = self.row()
        assert row.fault is None
        return row.state in OPEN

    def end(self, kind: str = "succeeded") -> None:
        """What was sent and has no outcome gets one."""
        for one in sent(self.app):
            if one.id in self.ended:
                continue
            self.ended.add(one.id)
            failure = {"failure": letter_failure()} if kind in ("dead", "retried") else {}
            generation = one.headers["x_generation"]
            event = Event(one.id, kind, task=one.task, queue=one.queue, generation=generation, attempt=1, **failure)
            self.app.journal.append([event])
        Recorder(self.app.store, lambda: self.app.database).drain_once()

    def row(self) -> Any:
        """The redrive."""
        with self.app.database.session() as session:
            session.expire_on_commit = False
            return redrive_rows.get(session, self.id)


def letter_failure() -> Any:
    """How a letter died again."""
    return describe("tests.cli.command_tasks.Send", ValueError("again"))


def test_redrive_sends_the_message_again(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """The same id and key, the same payload and actor, in the task's queue, with fresh attempts; only once."""
    bury()
    drive = Drive(commands_app, started(run, "m1", "--reason", "fixed"))
    assert letter(commands_app).state == "dead"
    drive.step()
    assert letter(commands_app).state == "redriving"
    (message,) = sent(commands_app)
    assert (message.id, message.task, message.queue) == ("m1", "tests.cli.command_tasks.Send", "mail")
    assert message.arguments == {"user_id": 7, "day": "2026-01-05"}
    assert (message.headers["x_key"], message.headers["x_actor"]) == ("the-key", "u-42")
    assert not message.headers.get("x_counts")
    assert (message.headers["retries"], message.headers["x_generation"]) == (0, 1)
    drive.end()
    assert not drive.step()
    assert letter(commands_app).state == "redriven"
    row = drive.row()
    assert (row.state, row.total, row.sent, row.succeeded, row.failed) == ("finished", 1, 1, 1, 0)
    again = run(dead_letters, "redrive", "m1", "--yes")
    assert (again.exit_code, again.stdout) == (1, "")
    (deed,) = deeds(commands_app)
    assert (deed.actor, deed.action, deed.target, deed.reason) == ("u-9", "dead-letters redrive", drive.id, "fixed")
    assert Filter.of(deed.before or {}).open.words() == {"ids": ["m1"]}


def test_a_canary_that_fails_leaves_the_rest_untouched(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Five of twelve are tried, all of them fail again: the redrive stops and says why."""
    for number in range(12):
        bury(f"m{number:02}")
    drive = Drive(commands_app, started(run, "--all"))
    assert drive.step()
    assert len(sent(commands_app)) == 5
    for _ in range(3):
        assert drive.step()
    assert len(sent(commands_app)) == 5, "it waits for the canary"
    drive.end("dead")
    assert not drive.step()
    row = drive.row()
    assert (row.state, row.sent, row.failed) == ("stopped", 5, 5)
    assert "5 of 5 failed again" in row.note
    assert [letter(commands_app, f"m{number:02}").generation for number in range(12)] == [1] * 5 + [0] * 7
    assert not Drive(commands_app, drive.id).step(), "begun anew, it has ended"


def left(run: Run, id_: str, *more: str) -> list[str]:
    """The letters that a redrive has left."""
    return sorted(one["id"] for one in json.loads(run(dead_letters, "list", "--left-by", id_, "--json", *more).stdout))


def test_what_a_stopped_redrive_has_left(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Is listed, by the beginning of its id, too, and sent by another one; what died after its start is not of it."""
    for number in range(8):
        bury(f"m{number}")
    drive = Drive(commands_app, started(run, "--all", "--canary", "3"))
    drive.step()
    bury("later")
    drive.end("dead")
    assert not drive.step()
    rest = [f"m{number}" for number in range(3, 8)]
    assert left(run, drive.id) == left(run, drive.id[:8]) == rest
    assert left(run, drive.id, "--task", "Nothing") == []
    unknown = run(dead_letters, "list", "--left-by", "no-such-redrive")
    assert (unknown.exit_code, "there is no redrive no-such-redrive" in unknown.stderr) == (2, True), unknown.stderr
    run(dead_letters, "discard", "m7", "--reason", "a test", "--yes")
    assert left(run, drive.id) == rest[:-1]
    second = Drive(commands_app, started(run, "--all", "--left-by", drive.id, "--canary", "1"))
    assert Filter.of(second.row().selection).left_by == drive.id
    assert second.row().total == 4
    second.step()
    assert left(run, second.id) == left(run, drive.id) == rest[1:-1], "the first one has left fewer, too"
    second.end()
    while second.step():
        second.end()
    assert left(run, second.id) == left(run, drive.id) == []
    assert {letter(commands_app, one).state for one in rest[:-1]} == {"redriven"}
    assert letter(commands_app, "later").generation == 0


def test_what_a_redrive_of_discarded_letters_has_left(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Has their state, without saying so."""
    for number in range(4):
        bury(f"m{number}")
    run(dead_letters, "discard", "--all", "--reason", "a test", "--yes")
    drive = Drive(commands_app, started(run, "--all", "--state", "discarded", "--canary", "1"))
    drive.step()
    run(dead_letters, "stop", drive.id)
    assert left(run, drive.id) == ["m1", "m2", "m3"]
    second = Drive(commands_app, started(run, "--all", "--left-by", drive.id, "--canary", "1"))
    second.step()
    run(dead_letters, "stop", second.id)
    assert left(run, second.id) == ["m2", "m3"]
    assert [letter(commands_app, f"m{number}").state for number in (2, 3)] == ["discarded", "discarded"]


@pytest.mark.parametrize("what", ["gone", "of a later release", "a circle"])
def test_what_an_unknown_redrive_has_left(run: Run, bury: Bury, commands_app: ConventionsApp, what: str) -> None:
    """Is said; a redrive of that waits, and does not end as if all were sent."""
    for number in range(4):
        bury(f"m{number}")
    first = Drive(commands_app, started(run, "--all", "--canary", "1"))
    first.step()
    run(dead_letters, "stop", first.id)
    second = started(run, "--all", "--left-by", first.id, "--canary", "1")
    with commands_app.database.session() as session:
        row = redrive_rows.get(session, first.id)
        assert row is not None
        if what == "gone":
            session.delete(row)
        else:
            row.selection = {"moonphase": "full"} if what == "of a later release" else {"left_by": second}
    found = run(dead_letters, "list", "--left-by", second)
    assert found.exit_code == 2
    says = {
        "gone": "there is no redrive",
        "of a later release": "a later release wrote",
        "a circle": "too many others",
    }[what]
    assert says in found.stderr
    Redriver(commands_app, "the test", lambda: True).step(second)
    with commands_app.database.session() as session:
        row = redrive_rows.get(session, second)
        assert row is not None
        assert (row.state in OPEN, says in (row.fault or "")) == (True, True), (row.state, row.fault)


def test_the_rest_follows_a_canary_that_succeeds(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Those that failed first come first; another recorder that goes on in the middle sends none twice."""
    for number in range(12):
        bury(f"m{number:02}")
    id_ = started(run, "--all", "--rate", "1000", "--canary", "2")
    drive = Drive(commands_app, id_)
    drive.step()
    drive.end()
    drive.step()
    assert {one.id for one in sent(commands_app)} == {f"m{number:02}" for number in range(2 + 5)}
    assert drive.row().state == "sending"
    other = Drive(commands_app, id_)
    other.ended = drive.ended
    while other.step():
        other.end()
    assert len(sent(commands_app)) == 12
    row = other.row()
    assert (row.state, row.sent, row.succeeded) == ("finished", 12, 12)


def test_a_redrive_warns_of_workers_of_different_releases(
    run: Run, bury: Bury, commands_app: ConventionsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one queue of its letters is consumed by both; other queues, silent workers and unnamed releases tell nothing."""
    bury("m1")
    bury("m2", queue="long")
    reports = WorkerReports(commands_app.store)

    def warned() -> list[str]:
        said = run(dead_letters, "redrive", "m1", "m2").stderr  # nobody says yes
        return [one for one in said.splitlines() if "releases" in one]

    def say(name: str, release: str | None, *queues: str) -> None:
        reports.say(name, WorkerReport(release=release, processes=1, queues=queues))

    say("w1@host", "r1", "mail", "other")
    say("w2@host", "r2", "long", "other")
    say("w3@host", None, "mail")
    say("w4@host", "r1", "mail")
    assert warned() == []
    say("w5@host", "r2", "mail")
    told = "warning: workers of these queues run different releases, r1 and r2: a letter may meet either"
    assert warned() == [told]
    for number in range(3, 9):
        say(f"more{number}@host", f"r{number}", "mail")
    assert warned() == [told.replace("r1 and r2", "r1, r2, r3, r4, r5 and 3 more").replace("either", "any of them")]
    monkeypatch.setattr(worker_reports, "SILENT_AFTER", -1.0)
    assert warned() == []


def test_what_cannot_be_sent_stays_dead_and_counts_as_failed(
    run: Run, bury: Bury, commands_app: ConventionsApp
) -> None:
    """A task that is gone, a payload that fits no more; the warning comes before anything is sent."""
    bury("gone", task="tests.cli.command_tasks.Gone")
    bury("short", arguments={"user_id": 7})
    result = run(dead_letters, "redrive", "gone", "short", "--yes", "--no-wait")
    assert "task tests.cli.command_tasks.Gone is not registered here" in result.stderr
    assert "no worker consumes the queue mail" in result.stderr
    drive = Drive(commands_app, result.stdout.strip())
    drive.step()
    assert not drive.step()
    row = drive.row()
    assert (row.state, row.failed) == ("stopped", 2)
    assert sent(commands_app) == []
    assert {letter(commands_app, one).state for one in ("gone", "short")} == {"dead"}


def test_an_effect_that_happened_is_a_success_without_a_run(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Another message with its key has succeeded since; the history says so where the claim is gone."""
    bury()
    commands_app.journal.append([Event("m2", "succeeded", task=Send.name, key="the-key", attempt=1)])
    Recorder(commands_app.store, lambda: commands_app.database).drain_once()
    drive = Drive(commands_app, started(run, "m1"))
    drive.step()
    assert not drive.step()
    assert sent(commands_app) == []
    assert letter(commands_app).state == "redriven"
    assert drive.row().succeeded == 1


@pytest.mark.parametrize("remembered", [True, False])
def test_another_job_of_the_same_key_is_not_its_effect(
    run: Run, bury: Bury, commands_app: ConventionsApp, remembered: bool
) -> None:
    """A message that was refused for a conflict was not done by the one that it conflicts with."""
    bury(error=IdempotencyConflict("other arguments"))
    if remembered:
        other = ClaimRequest(Send.name, "the-key", "t", "m2", "another fingerprint")
        commands_app.claims.take([other])
        commands_app.claims.settle([Settlement(other, "done", None)])
    commands_app.journal.append([Event("m2", "succeeded", task=Send.name, key="the-key", attempt=1)])
    Recorder(commands_app.store, lambda: commands_app.database).drain_once()
    Drive(commands_app, started(run, "m1")).step()
    assert [one.id for one in sent(commands_app)] == ["m1"]


def test_a_letter_that_was_redriven_three_times_is_left(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Unless somebody says so."""
    bury(generation=3)
    result = run(dead_letters, "redrive", "--all", "--yes")
    assert result.exit_code == 1
    assert "1 were redriven 3 times" in result.stderr
    drive = Drive(commands_app, started(run, "--all", "--again"))
    drive.step()
    assert len(sent(commands_app)) == 1


def test_a_redrive_can_be_stopped(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """What was sent goes on; once."""
    for number in range(3):
        bury(f"m{number}")
    drive = Drive(commands_app, started(run, "--all", "--canary", "1"))
    drive.step()
    assert run(dead_letters, "stop", drive.id, "--reason", "wrong ones").exit_code == 0
    assert not drive.step()
    assert len(sent(commands_app)) == 1
    assert run(dead_letters, "stop", drive.id).exit_code == 1
    (row,) = json.loads(run(dead_letters, "redrives", "--json").stdout)
    assert (row["id"], row["state"], row["sent"]) == (drive.id, "cancelled", 1)
    assert row["stop_reason"] == "wrong ones"
    assert deeds(commands_app)[-1].action == "dead-letters stop"


@pytest.mark.parametrize("arguments", [(), ("--task", "x"), ("m1", "--all"), ("--all", "--canary", "-1")])
def test_a_selection_is_said_in_one_way(run: Run, arguments: tuple[str, ...]) -> None:
    """Ids, a group, or all; anything else is wrong usage."""
    assert run(dead_letters, "redrive", *arguments, "--yes").exit_code == 2


def test_nothing_is_sent_unless_somebody_says_yes(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Where nobody can answer, `--yes` is needed."""
    bury()
    result = run(dead_letters, "redrive", "m1")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert messages(commands_app) == []


def test_a_letter_stays_dead_when_the_broker_is_away(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """One line names the broker; the letter can be sent again later."""
    bury()
    url = commands_app.settings.database_url
    options = {"broker_url": "redis://127.0.0.1:1", "broker_timeout": 0.3, "database_url": url, "key_prefix": "none"}
    with application(["tests.cli.command_tasks"], **options) as away:
        result = run(dead_letters, "redrive", "m1", "--yes", app=away)
    assert result.exit_code == 2
    assert "127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.stderr
    assert letter(commands_app).state == "dead"
    assert json.loads(run(dead_letters, "redrives", "--json").stdout) == []


@pytest.mark.parametrize(("said", "expected"), [((), 9), (("--priority", "low"), 1)])
def test_a_redrive_may_go_behind_what_is_new(
    run: Run, bury: Bury, commands_app: ConventionsApp, said: tuple[str, ...], expected: int
) -> None:
    """By its priority, with a message that was kept and with one that is made anew; without it as each was sent."""
    first = Send.apply_async(kwargs={"user_id": 1, "day": "2026-01-05"}, priority=Priority.URGENT)
    (message,) = messages(commands_app)
    raw = json.loads(stored(commands_app.broker.store, first.id)["payload"])
    commands_app.broker.drop("mail")
    bury(first.id, message=raw, headers=message.headers)
    id_ = started(run, "--all", *said)
    drive = Drive(commands_app, id_)
    drive.step()
    (again,) = sent(commands_app)
    assert (again.id, again.priority) == (first.id, expected)
    (listed,) = json.loads(run(dead_letters, "redrives", "--json").stdout)
    assert listed["priority"] == ("LOW" if said else None)


def test_an_edit_is_checked_and_kept(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """By the annotations; before and after are in the audit, and the message that is sent has the new value."""
    body = base64.b64encode(json.dumps([[], {"user_id": 7, "day": "2026-01-05"}, {}]).encode()).decode()
    key = idempotency_key(commands_app.tasks[Send.name].idempotent_on, {"user_id": 7, "day": "2026-01-05"}, "m1", None)
    headers = {"id": "m1", "task": Send.name, "x_key": key}
    stored = {"body": body, "headers": headers, "content-type": "application/json", "content-encoding": "utf-8"}
    bury(headers={"x_key": key}, stored=json.dumps(stored).encode())
    wrong = run(dead_letters, "edit", "m1", "--set", 'user_id="x"')
    assert (wrong.exit_code, letter(commands_app).arguments["user_id"]) == (2, 7)
    assert "user_id" in wrong.stderr
    result = run(dead_letters, "edit", "m1", "--set", "user_id=8", "--reason", "typo", "--actor", "u-9")
    assert (result.exit_code, result.stdout) == (0, "user_id: 7 -> 8\n")
    assert run(dead_letters, "edit", "m1", "--set", "user_id=8").exit_code == 1
    (deed,) = deeds(commands_app)
    assert (deed.actor, deed.action, deed.target, deed.reason) == ("u-9", "dead-letters edit", "m1", "typo")
    assert (deed.before["user_id"], deed.after["user_id"]) == (7, 8)
    Drive(commands_app, started(run, "m1")).step()
    (message,) = sent(commands_app)
    assert message.arguments == {"user_id": 8, "day": "2026-01-05"}
    assert message.headers["x_key"] != key, "another user's job is another job"
    assert message.headers["x_fingerprint"]


def remark(bury: Bury) -> None:
    """A letter with an argument that its task takes no more."""
    bury(task=Remark.name, arguments={"user_id": 7, "text": "old", "colour": "red"})


def test_an_edit_drops_what_the_task_takes_no_more(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """As the page does, and says so; texts need no quotes."""
    remark(bury)
    result = run(dead_letters, "edit", "m1", "--set", "text=say it", "--actor", "u-9")
    assert (result.exit_code, result.stdout) == (0, 'text: "old" -> "say it"\ncolour: dropped\n'), result.stderr
    assert letter(commands_app).arguments == {"user_id": 7, "text": "say it", "tags": None, "day": None}
    assert deeds(commands_app)[0].before == {"user_id": 7, "text": "old", "colour": "red"}


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ("text=7", "text", "7"),
        ("text=null", "text", "null"),
        ('text="quoted"', "text", "quoted"),
        ("text=a=b", "text", "a=b"),
        ('tags=["a"]', "tags", ["a"]),
        ("day=2026-01-31", "day", "2026-01-31"),
        ("user_id=8", "user_id", 8),
    ],
)
def test_a_value_by_the_type_of_its_argument(
    run: Run, bury: Bury, commands_app: ConventionsApp, *, given: str, name: str, value: Any
) -> None:
    """JSON, or a text where the argument takes one; the same in the field of the page."""
    remark(bury)
    result = run(dead_letters, "edit", "m1", "--set", given)
    assert (result.exit_code, letter(commands_app).arguments[name]) == (0, value), result.stderr
    written = {"user_id": "7", "text": "old"} | dict([given.split("=", 1)])
    values, faults = argument_editor.read(commands_app.tasks[Remark.name].arguments, written)
    assert (values[name], faults) == (value, {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "user_id=seven",
            "--set user_id: Input should be a valid integer; write JSON, or a text where user_id takes one",
        ),
        ('text="half', "--set text: it begins as JSON, and is none"),
        ("nothing=1", "unexpected keyword argument 'nothing'"),
    ],
)
def test_a_value_that_cannot_be_taken(
    run: Run, bury: Bury, commands_app: ConventionsApp, given: str, said: str
) -> None:
    """The error names the argument and what to write; nothing is changed."""
    remark(bury)
    result = run(dead_letters, "edit", "m1", "--set", given)
    assert (result.exit_code, said in " ".join(result.stderr.split())) == (2, True), result.stderr
    assert letter(commands_app).arguments["text"] == "old"


def test_an_argument_can_be_dropped(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Its default counts then; one that has none, or is not there, is refused."""
    bury(task=Remark.name, arguments={"user_id": 7, "text": "old", "tags": ["a"], "day": None})
    result = run(dead_letters, "edit", "m1", "--drop", "tags")
    assert (result.exit_code, letter(commands_app).arguments["tags"]) == (0, None), result.stderr
    for name in ("text", "colour"):
        assert run(dead_letters, "edit", "m1", "--drop", name).exit_code == 2


def test_an_edit_keeps_a_key_that_was_given(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Whoever gave it says which job it is."""
    bury()
    assert run(dead_letters, "edit", "m1", "--set", "user_id=8").exit_code == 0
    assert letter(commands_app).headers["x_key"] == "the-key"


@pytest.mark.parametrize("message_id", ["nobody", "gone", "raw"])
def test_what_cannot_be_edited_says_why(run: Run, bury: Bury, message_id: str) -> None:
    """Unknown, of a task that is gone, or bytes that are no message."""
    bury("gone", task="tests.cli.command_tasks.Gone")
    bury("raw", stored=b"\xff")
    result = run(dead_letters, "edit", message_id, "--set", "user_id=8")
    assert result.exit_code == 2
    assert message_id in result.stderr


def test_discard_gives_up_once(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """With a reason, which is kept; a letter that was given up is neither listed nor sent."""
    bury()
    assert run(dead_letters, "discard", "m1", "--yes").exit_code == 2
    assert run(dead_letters, "discard", "m1", "--yes", "--reason", "a test").exit_code == 0
    assert letter(commands_app).state == "discarded"
    again = run(dead_letters, "discard", "m1", "nobody", "-y", "--reason", "a test")
    assert (again.exit_code, again.stdout) == (1, "0 of 2 discarded\n")
    assert run(dead_letters, "redrive", "m1", "--yes").exit_code == 1
    assert json.loads(run(dead_letters, "list", "--json").stdout) == []
    assert [(deed.target, deed.reason) for deed in deeds(commands_app)] == [("m1", "a test")]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Somebody says yes, and something happens before he does."""

    def asked(meanwhile: Callable[[], object]) -> None:
        monkeypatch.setattr(changes, "confirm", lambda _question, *, yes: None if yes else meanwhile())

    return asked


@pytest.mark.parametrize(
    "command",
    [
        ("discard", "--all", "--reason", "a test"),
        ("edit-many", "--all", "--reason", "a test", "--set", "user_id=8"),
        ("redrive", "--all", "--no-wait"),
    ],
)
def test_what_dies_since_the_question_stays(
    run: Run, bury: Bury, asked: Asked, commands_app: ConventionsApp, command: tuple[str, ...]
) -> None:
    """As on the pages: nobody has agreed to it."""
    bury()
    asked(lambda: bury("m2", at=utc_now() + timedelta(seconds=1)))
    result = run(dead_letters, *command)
    assert result.exit_code == 0, result.output
    if command[0] == "redrive":
        Drive(commands_app, result.stdout.strip()).step()
    agreed = letter(commands_app, "m1")
    assert agreed.state != "dead" or (agreed.arguments or {})["user_id"] == 8
    newer = letter(commands_app, "m2")
    assert (newer.state, (newer.arguments or {})["user_id"]) == ("dead", 7)


def test_discard_says_how_many_died_since(run: Run, bury: Bury, asked: Asked, commands_app: ConventionsApp) -> None:
    """And gives up nothing where others have taken what was asked for."""
    bury()
    asked(lambda: bury("m2", at=utc_now() + timedelta(seconds=1)))
    result = run(dead_letters, "discard", "--all", "--reason", "a test")
    assert (result.stdout, result.stderr) == ("1 of 1 discarded\n", "1 more died since you were asked, and stay\n")
    bury("m3")
    asked(lambda: run(dead_letters, "discard", "m2", "--yes", "--reason", "another"))
    result = run(dead_letters, "discard", "--all", "--reason", "a test")
    assert result.exit_code != 0
    assert "of the 2 dead letters to which you agreed, 1 are still there; nothing was done" in result.output
    assert letter(commands_app, "m3").state == "dead"


def test_a_note_stays_on_its_group(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Until it is replaced or removed."""
    bury()
    fingerprint = letter(commands_app).fingerprint
    for text in ("card provider is down", "fixed", ""):
        assert run(dead_letters, "note", fingerprint, text).exit_code == 0
        (group,) = json.loads(run(dead_letters, "groups", "--json").stdout)
        assert group["note"] == text
    refused = run(dead_letters, "note", fingerprint, "x" * 10_001)
    assert refused.exit_code == 2
    assert "a note has at most 10,000 characters" in refused.output
    assert [(deed.before, deed.after) for deed in deeds(commands_app)] == [
        (None, "card provider is down"), ("card provider is down", "fixed"), ("fixed", None),
    ]  # fmt: skip


def test_export_writes_a_line_for_each_letter(run: Run, bury: Bury) -> None:
    """Whole, and only those that match."""
    bury("m1")
    bury("m2", queue="long")
    lines = run(dead_letters, "export", "--queue", "long").stdout.splitlines()
    (one,) = map(json.loads, lines)
    assert (one["id"], one["arguments"], one["headers"]["x_key"]) == (
        "m2",
        {"user_id": 7, "day": "2026-01-05"},
        "the-key",
    )
    assert "ValueError" in one["traceback"]
    assert len(run(dead_letters, "export", "--json").stdout.splitlines()) == 2


def test_every_command_has_json() -> None:
    """So that a script need not know which one does."""
    for name, command in dead_letters.commands.items():
        assert "--json" in [text for option in command.params for text in option.opts], name


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("redrive", "--all", "--rate", "NaN"), "letters a second"),
        (("redrive", "--all", "--rate", "inf"), "letters a second"),
        (("redrive", "--all", "--stop-at", "NaN"), "a percentage"),
        (("redrive", "--all", "--canary", "9" * 21), "a number of letters"),
        (("list", "--limit", "9" * 20), "--limit"),
    ],
)
def test_numbers_that_are_none(run: Run, bury: Bury, options: tuple[str, ...], fault: str) -> None:
    """Refused in one line; nothing is sent."""
    bury()
    found = run(dead_letters, *options)
    assert (found.exit_code, fault in found.stderr) == (2, True), found.output
    assert found.exception is None or isinstance(found.exception, SystemExit)
