"""`celery messages`, as people run it in an incident: count, cancel and move what waits; also where it is killed half-way."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conventions.app import ConventionsApp
from conventions.pauses.pause_actions import PauseActions
from conventions.pauses.pause_store import Target
from conventions.records import executions
from tests.integration.pauses_tasks import Apart, Note, Other
from tests.support import wait_until
from tests.workers import Installation

pytestmark = [pytest.mark.processes]
MANY = 8_000


@pytest.fixture
def alone(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """An installation of the test's own."""
    packages = ["tests.integration.pauses_tasks"]
    return Installation(tmp_path, packages, broker_url=valkey_url, database_url=new_database(tmp_path))


def cancelled(app: ConventionsApp) -> list[str]:
    """The ids of which a row says so."""
    with app.database.session() as session:
        rows = executions.latest(session, 2 * MANY, kind="cancelled")
        return [row.message_id for row in rows]


def test_some_are_cancelled_and_others_moved(alone: Installation) -> None:
    """While the queue is paused; what is left runs, and so does what was moved."""
    run = alone.run
    with alone.application() as app:
        PauseActions(app.store).pause(Target("queue", "immediate"), "u", "x")
        Note.enqueue_many({"folder": alone.folder, "number": number} for number in range(30))
        Other.enqueue_many({"folder": alone.folder, "number": number} for number in range(20))
        counted = run("messages", "count", "--queue", "immediate")
        assert "50 messages" in counted.stdout
        assert run("messages", "count", "--queue", "imediate").returncode == 2
        listed = json.loads(run("messages", "list", "--task", "Note", "--arg", "number=7", "--json").stdout)
        assert [(one["arguments"]["number"], one["queue"], one["state"]) for one in listed] == [
            (7, "immediate", "queued")
        ]
        too_wide = run("messages", "cancel", "--reason", "x", "--yes")
        assert (too_wide.returncode, "say which" in too_wide.stdout) == (2, True)
        several = run(
            "messages",
            "cancel",
            *(word for name in ("immediate", "scheduled", "long", "apart") for word in ("--queue", name)),
            "--reason",
            "x",
        )
        assert (several.returncode, "Cancel 50 messages" in several.stdout) == (2, True)
        nobody_answers = run("messages", "cancel", "--task", "Note", "--reason", "x")
        assert (nobody_answers.returncode, "Cancel 30 messages (30 in immediate)?" in nobody_answers.stdout) == (
            2,
            True,
        )
        assert run("messages", "cancel", "--task", "Note", "--reason", " ", "--yes").returncode == 2
        done = run(
            "messages", "cancel", "--task", "Note", "--reason", "the wrong text", "--yes", "--actor", "u-7", "--json"
        )
        assert json.loads(done.stdout) == {"done": 30, "queues": {"immediate": 30}, "by_workers": 0, "left": 0}
        assert run("messages", "cancel", "--task", "Note", "--reason", "x", "--yes").returncode == 1
        same = run("messages", "move", "--queue", "immediate", "--to", "immediate", "--reason", "x", "--yes")
        assert same.returncode == 2
        moved = run(
            "messages", "move", "--queue", "immediate", "--arg", "number=3", "--to", "apart", "--reason", "x", "--yes"
        )
        assert "1 message is moved to apart" in moved.stdout
        warned = "no worker consumes the queue apart: what is moved there waits until one does"
        assert warned in moved.stdout
        asked = run("messages", "move", "--queue", "immediate", "--to", "apart", "--reason", "x")
        assert (asked.returncode, asked.stdout.index(warned) < asked.stdout.index("Move to apart: ")) == (2, True)
        with alone.worker("-c", "1"):
            unnoticed = run(
                "messages", "move", "--task", "Other", "--arg", "number=4", "--to", "apart", "--reason", "x"
            )
            assert (unnoticed.returncode, "no worker" in unnoticed.stdout) == (2, False), unnoticed.stdout
            Apart.delay(folder=alone.folder, number=0)
            ran = alone.folder / "ran"
            wait_until(
                lambda: ran.exists() and len(ran.read_text().splitlines()) == 2, 30, "what is in the other queue runs"
            )
            assert sorted(ran.read_text().splitlines()) == ["apart 0 1", "other 3 1"]
            wait_until(lambda: len(cancelled(app)) == 30, 30, "each has a row")
            assert PauseActions(app.store).resume(Target("queue", "immediate"), "u")
            wait_until(lambda: len(ran.read_text().splitlines()) == 21, 30, "the rest runs")


def test_a_cancel_of_many_that_is_killed_is_done_by_the_next_one(alone: Installation) -> None:
    """Each has one row; the others are left."""
    with alone.application() as app:
        Note.enqueue_many({"folder": alone.folder, "number": number} for number in range(MANY))
        others = Other.enqueue_many({"folder": alone.folder, "number": number} for number in range(100))
        command = alone.celery("messages", "cancel", "--task", "Note", "--reason", "x", "--yes")
        with subprocess.Popen(command, cwd=alone.folder, env=alone.environment) as process:
            wait_until(lambda: 1000 < app.broker.sizes("immediate").ready < MANY, 60, "some are gone")
            process.kill()
        left = app.broker.sizes("immediate").ready - len(others)
        assert left > 0
        done = alone.run(*command[5:], "--json")
        assert json.loads(done.stdout)["done"] == left
        assert app.broker.sizes("immediate").ready == len(others)
        with alone.worker("-c", "1", "-Q", "apart"):
            wait_until(lambda: len(cancelled(app)) == MANY, 60, "each has a row")
        assert len({*cancelled(app)}) == MANY


def test_rabbitmq_says_what_it_cannot(alone: Installation) -> None:
    """And what can be done instead; without a server, since it is not asked."""
    said = alone.run("messages", "cancel", "--task", "Note", "--reason", "x", "--yes",
                     CONVENTIONS_BROKER_URL="amqp://127.0.0.1:1//", CONVENTIONS_REDIS_URL=alone.settings["broker_url"])  # fmt: skip
    assert said.returncode == 2
    assert "this broker shows no single messages of a queue: pause the queue" in said.stdout
