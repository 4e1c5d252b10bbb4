"""`celery jobs list` while real workers run: what runs, waits and has ended, by each filter; and what could not be asked is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conventions.records import executions
from tests.integration.pauses_tasks import Apart, Hold, Note
from tests.support import wait_until
from tests.workers import Installation

pytestmark = [pytest.mark.processes]


@pytest.fixture
def alone(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """An installation of the test's own."""
    packages = ["tests.integration.pauses_tasks"]
    return Installation(tmp_path, packages, broker_url=valkey_url, database_url=new_database(tmp_path))


def listed(one: Installation, *options: str) -> list[dict[str, Any]]:
    """The rows."""
    ended = one.run("jobs", "list", "--json", *options)
    assert ended.returncode == 0, ended.stdout
    # What is said on standard error comes after it here.
    found: list[dict[str, Any]] = json.JSONDecoder().raw_decode(ended.stdout)[0]["lines"]
    return found


def test_by_each_filter(alone: Installation) -> None:
    """By state, task, queue, worker, release, sender, argument and time."""
    with alone.application() as app, alone.worker("-c", "1", "-Q", "immediate", CONVENTIONS_RELEASE="r7"):
        done = Note.apply_async(kwargs={"folder": alone.folder, "number": 1}, actor="u-1")

        def recorded() -> bool:
            with app.database.session() as session:
                return bool(executions.latest(session, 1, kind="succeeded"))

        wait_until(recorded, 30, "it has ended")
        runs = Hold.delay(folder=alone.folder, number=2)
        wait_until(lambda: "hold 2" in (alone.folder / "ran").read_text(), 30, "it runs")
        waits = Apart.apply_async(kwargs={"folder": alone.folder, "number": 3}, actor="u-3")
        later = Apart.apply_async(kwargs={"folder": alone.folder, "number": 4}, countdown=3600)
        everything = [runs.id, waits.id, later.id, done.id]
        wait_until(lambda: [row["id"] for row in listed(alone)] == everything, 30, "all of them, in this order")
        worker = wait_until(lambda: listed(alone, "--state", "running")[0]["worker"], 30, "its worker has said so")
        assert worker.startswith("worker0@")
        for options, expected in (
            (("--state", "running"), [runs.id]),
            (("--state", "queued"), [waits.id]),
            (("--state", "delayed"), [later.id]),
            (("--state", "succeeded"), [done.id]),
            (("--task", "Apart"), [waits.id, later.id]),
            (("--queue", "immediate"), [runs.id, done.id]),
            (("--worker", worker), [runs.id, done.id]),
            (("--release", "r7"), [runs.id, done.id]),
            (("--release", "r8"), []),
            (("--actor", "u-1"), [done.id]),
            (("--actor", "u-3"), [waits.id]),
            (("--arg", "number=3"), [waits.id]),
            (("--since", "1h"), everything),
            (("--until", "1h"), []),
            (("--limit", "1", "--queue", "apart"), [waits.id]),
        ):
            assert [row["id"] for row in listed(alone, *options)] == expected, options
        assert "Hold" in alone.run("jobs", "list").stdout
        (alone.folder / "go").touch()


def test_what_cannot_be_asked_is_said(alone: Installation) -> None:
    """Status 1, and the other parts."""
    with alone.application():
        sent = Note.delay(folder=alone.folder, number=1)
    without_sql = alone.run("jobs", "list", "--json", CONVENTIONS_DATABASE_URL="postgresql+psycopg://127.0.0.1:1/x")
    assert without_sql.returncode == 1
    found = json.loads(without_sql.stdout.partition("\nended jobs")[0])
    assert [row["id"] for row in found["lines"]] == [sent.id]
    assert list(found["absent"]) == ["ended jobs"]
    wrong = alone.run("jobs", "list", "--since", "soon")
    assert (wrong.returncode, "is no time" in wrong.stdout) == (2, True)
