"""`celery -A <app> job ID`: what became of a job, for people and as JSON."""

import json

import pytest

from conventions.app import ConventionsApp
from conventions.cli.job import FIELDS, job
from conventions.records.journal import Event
from tests.cli.command_tasks import Send
from tests.cli.conftest import Run
from tests.recorded import FAILURE


def test_a_job_that_waits(run: Run, commands_app: ConventionsApp) -> None:
    """Why it waits, also that nobody reads its queue."""
    sent = Send.apply_async(kwargs={"user_id": 7, "day": "2026-01-05"}, actor="u-42")
    found = run(job, sent.id)
    assert found.exit_code == 0
    lines = dict(
        line.split(maxsplit=1) for line in found.stdout.splitlines() if not line.startswith(("enqueued", "waits"))
    )
    assert lines == {
        "id": sent.id, "state": "queued", "task": Send.name, "queue": Send.queue_name, "actor": "u-42", "key": lines["key"], "attempts": "0"
    }  # fmt: skip
    why = (
        f"it is the next one of the queue {Send.queue_name}, and no worker of this application runs; no worker consumes"
    )
    assert f"waits because  {why} the queue {Send.queue_name}\n" in found.stdout
    shown = json.loads(run(job, sent.id, "--json").stdout)
    assert tuple(shown) == FIELDS
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
