"""`celery dead-letters edit-many`: many letters corrected in one way, after a look, each checked and each in the audit (R18)."""

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from click.testing import Result

from conventions.app import ConventionsApp
from conventions.cli.dead_letters import dead_letters
from conventions.idempotency.key import idempotency_key
from conventions.metrics.worker_reports import WorkerReport, WorkerReports
from conventions.records import audit
from conventions.storage.tables import DeadLetterRow
from tests.cli.command_tasks import Remark, Send

Run: TypeAlias = Callable[..., Result]
Bury: TypeAlias = Callable[..., None]
REMARK: dict[str, Any] = {"task": str(Remark.name), "headers": {}}


def arguments(app: ConventionsApp) -> dict[str, Any]:
    """The arguments of all letters, by id."""
    with app.database.session() as session:
        return {one.id: one.arguments for one in session.query(DeadLetterRow).order_by(DeadLetterRow.id)}


def deeds(app: ConventionsApp) -> list[tuple[str, str, str, str | None]]:
    """The audit, the oldest first."""
    with app.database.session() as session:
        rows = reversed(audit.listing(session, 100))
        return [(row.actor, row.action, row.target, row.reason) for row in rows]


def test_many_are_set_after_a_preview(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """A preview changes nothing; the edit has a row for each letter; keys made of the arguments are made anew."""
    key = idempotency_key(Send.idempotent_on, {"user_id": 7, "day": "2026-01-05"}, "m1", None)
    bury("m1", headers={"x_key": key, "x_fingerprint": "f"})
    bury("m2")
    bury("m3", arguments={"user_id": 7, "day": "2026-02-01"})
    before = arguments(commands_app)
    look = run(dead_letters, "edit-many", "--all", "--set", "day=2026-02-01", "--preview", "--json")
    found = json.loads(look.stdout)
    assert (found["done"], found["changed"], found["same"], found["refused"]) == (False, 2, 1, [])
    assert found["examples"][0] == {
        "id": "m1",
        "changes": [{"name": "day", "before": "2026-01-05", "after": "2026-02-01"}],
    }
    assert arguments(commands_app) == before
    assert deeds(commands_app) == []
    done = run(
        dead_letters,
        "edit-many",
        "--all",
        "--set",
        "day=2026-02-01",
        "--reason",
        "the wrong day",
        "--yes",
        "--actor",
        "u-7",
    )
    assert done.exit_code == 0, done.output
    assert 'm1: day: "2026-01-05" -> "2026-02-01"' in done.stdout
    assert "2 changed, 1 stay as they are, 0 are left" in done.stdout
    assert {one["day"] for one in arguments(commands_app).values()} == {"2026-02-01"}
    assert deeds(commands_app) == [("u-7", "dead-letters edit", id_, "the wrong day") for id_ in ("m1", "m2")]
    with commands_app.database.session() as session:
        keys = [session.get_one(DeadLetterRow, id_).headers["x_key"] for id_ in ("m1", "m2")]
    assert keys == [idempotency_key(Send.idempotent_on, {"user_id": 7, "day": "2026-02-01"}, "m1", None), "the-key"]


def test_it_warns_of_different_releases(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """Of those that would run the letters, as a redrive does, and of those by which they died: before anything is asked."""
    bury("m1", release="r1")
    bury("m2", release="r1")

    def warned(*which: str) -> list[str]:
        said = run(dead_letters, "edit-many", *which, "--set", "day=2026-02-01", "--preview").stderr
        return [one for one in said.splitlines() if one.startswith("warning: ")]

    reports = WorkerReports(commands_app.store)
    reports.say("w1@host", WorkerReport(release="r1", queues=("mail",)))
    reports.say("w2@host", WorkerReport(release="r2", queues=("other",)))
    assert warned("--all") == []
    reports.say("w2@host", WorkerReport(release="r2", queues=("mail",)))
    runs = "warning: workers of these queues run different releases, r1 and r2: a letter may meet either"
    assert warned("--all") == [runs]
    bury("m3", release="r2")
    died = "warning: these letters died by different releases, r1 and r2: their arguments may differ"
    assert warned("--all") == [runs, died]
    assert warned("m1", "m2") == [runs]
    commands_app.store.redis.delete(commands_app.store.key("workers"))
    commands_app.store.redis.set(commands_app.store.key("workers"), "another type")
    (unknown, again) = warned("--all")
    assert unknown.startswith("warning: by which releases they would run is not known: ")
    assert again == died


def test_arguments_are_renamed_and_dropped(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """As after a deploy that renamed one; what a task takes no more goes, too."""
    bury("m1", **REMARK, arguments={"user": 7, "text": "a", "colour": "red", "tags": ["x"]})
    bury("m2", **REMARK, arguments={"user_id": 8, "text": "b", "tags": ["y"]})
    done = run(
        dead_letters,
        "edit-many",
        "--task",
        "Remark",
        "--all",
        "--rename",
        "user=user_id",
        "--drop",
        "tags",
        "--reason",
        "x",
        "--yes",
    )
    assert done.exit_code == 0, done.output
    found = arguments(commands_app)
    assert {id_: (one["user_id"], one["text"], one.get("tags"), "colour" in one, "user" in one) for id_, one in found.items()} == {
        "m1": (7, "a", None, False, False), "m2": (8, "b", None, False, False),
    }  # fmt: skip


def test_one_that_does_not_fit_is_left_and_named(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """The others are edited: a task that is not known here, a type that is wrong, a name that has a value already."""
    bury("m1")
    bury("m2", task="gone.Task")
    bury("m3", **REMARK, arguments={"user_id": 1, "text": "a"})
    bury("m4", arguments={"user_id": 1, "who": 2, "day": "2026-01-05"})
    done = run(
        dead_letters,
        "edit-many",
        "--all",
        "--rename",
        "who=user_id",
        "--set",
        "user_id=9",
        "--reason",
        "x",
        "--yes",
        "--json",
    )
    found = json.loads(done.stdout)
    assert (done.exit_code, found["changed"], found["refused_ids"]) == (1, 2, ["m2", "m4"])
    whys = " ".join(one["why"] for one in found["refused"])
    assert "its task 'gone.Task' is not registered here" in whys
    assert "--rename who=user_id: it has a value for user_id already" in whys
    assert {id_: one["user_id"] for id_, one in arguments(commands_app).items()} == {"m1": 9, "m2": 7, "m3": 9, "m4": 1}
    wrong = run(dead_letters, "edit-many", "m1", "--set", "user_id=nobody", "--reason", "x", "--yes")
    assert wrong.exit_code == 1
    assert "1 cannot be changed so" in wrong.stdout
    assert arguments(commands_app)["m1"]["user_id"] == 9


def test_a_name_that_the_task_does_not_take_is_a_fault(run: Run, bury: Bury, commands_app: ConventionsApp) -> None:
    """It is not dropped in silence; an id without a letter is named, too."""
    bury("m1")
    before = arguments(commands_app)
    for words in (
        ("--set", "nosuch=3"),
        ("--rename", "user_id=nosuch"),
        ("--set", "day=2026-02-01", "--set", "nosuch=3"),
    ):
        done = run(dead_letters, "edit-many", "--all", *words, "--reason", "x", "--yes")
        assert (done.exit_code, "the task takes no 'nosuch'" in done.output) == (1, True)
    assert arguments(commands_app) == before
    missing = run(dead_letters, "edit-many", "m1", "nobody", "--set", "user_id=9", "--reason", "x", "--yes")
    assert (missing.exit_code, "nobody is no dead letter" in missing.output) == (1, True)
    assert arguments(commands_app)["m1"]["user_id"] == 9


def test_what_is_not_said_is_asked_for(run: Run, bury: Bury) -> None:
    """Which letters, what to change, and why; and nobody answers here."""
    bury("m1")
    nothing = run(dead_letters, "edit-many", "--all", "--reason", "x", "--yes")
    assert (nothing.exit_code, "say what to change" in nothing.output) == (2, True)
    no_reason = run(dead_letters, "edit-many", "--all", "--set", "user_id=9", "--yes")
    assert (no_reason.exit_code, "say why with --reason" in no_reason.output) == (2, True)
    nobody = run(dead_letters, "edit-many", "--set", "user_id=9", "--reason", "x", "--yes")
    assert (nobody.exit_code, "say which" in nobody.output) == (2, True)
    unanswered = run(dead_letters, "edit-many", "--all", "--set", "user_id=9", "--reason", "x")
    assert (unanswered.exit_code, "Change 1 letter? Nobody can answer here" in unanswered.output) == (2, True)
