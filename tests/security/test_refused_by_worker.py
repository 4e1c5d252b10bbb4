"""A job that sends a credential: its own letter, and that of a step, hold nothing of it (R20)."""

import json

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.storage.tables import DeadLetterRow, ExecutionRow
from tests.recorded import contents
from tests.workers import Worker, wait_for_letter

SECRET = "glpat-" + "abcdefghijklmnopqrst"


class Call(ImmediateTask):
    """Call a service."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, note: str) -> None:
        """Nothing runs here."""


class Ask(ImmediateTask):
    """Send another job with what it has read."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        Call.delay(note=f"{SECRET} {number}")


class Read(ImmediateTask):
    """Return what the next step takes."""

    idempotent_on = EVERY_ARGUMENT

    def run(self) -> str:
        return SECRET


def test_a_job_that_sends_one(live_app: ConventionsApp, worker: Worker) -> None:
    """It fails at once, as every retry would; nothing is sent, and neither SQL nor the log has the value."""
    letter = wait_for_letter(live_app, Ask.delay(1).id)
    assert (letter.error, letter.attempts) == ("CredentialInPayload", 1)
    assert "note looks like a token of GitLab" in letter.error_message
    rows = contents(live_app.database, ExecutionRow)
    assert {row["task"] for row in rows} == {Ask.name}
    assert SECRET not in json.dumps([rows, contents(live_app.database, DeadLetterRow)], default=str)
    assert SECRET not in worker.output


def test_a_step_that_gets_one(live_app: ConventionsApp, worker: Worker) -> None:
    """The result of the step before is refused as an argument of the next one, which has a letter without it."""
    after = Call.s().set(task_id="after-read")
    Read.apply_async(link=after)
    letter = wait_for_letter(live_app, "after-read")
    assert (letter.error, letter.arguments) == ("CredentialInPayload", {"note": "(left out: a token of GitLab)"})
    assert SECRET not in json.dumps(contents(live_app.database, DeadLetterRow), default=str)
    assert SECRET not in worker.output
