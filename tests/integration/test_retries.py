"""Retries by kind of error, in a real worker: counts live in the message, and every way to fail goes by the policy."""

from pathlib import Path
from typing import Any

import pytest

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.records import executions
from tests.support import patient, wait_until
from tests.workers import wait_for_letter, wait_until_empty

SOON = RetryPolicy(attempts=5, network_attempts=10, first_wait=0.01, max_wait=0.05)


class Shaky(ImmediateTask):
    """Fail as often and in such ways as the letters say: network, other, business; anything else succeeds."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    retry_policy = SOON

    def run(self, ways: str) -> int:
        match ways[self.attempt - 1]:
            case "n":
                raise ConnectionError("the network")
            case "o":
                raise RuntimeError("something else")
            case "b":
                raise BusinessError("the account is empty")
        return self.attempt


class Again(ImmediateTask):
    """Ask for another attempt, for ever, because of an error of this kind."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = SOON

    def run(self, kind: str) -> None:
        errors = {"b": BusinessError("empty"), "n": ConnectionError("the network"), "none": None}
        raise self.retry(exc=errors[kind], countdown=3600)  # which the policy does not allow


class Replaced(ImmediateTask):
    """Let the same job take its own place, the first time."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, folder: Path) -> None:
        with (folder / "ran").open("a", encoding="utf-8") as file:
            file.write("once\n")
        if not self.request.replaced_task_nesting:
            raise self.replace(self.si(folder=folder))


def kinds(app: ConventionsApp, message_id: str) -> list[str]:
    """How the attempts of a message ended, in their order."""

    def read() -> Any:
        with app.database.session() as session:
            return [row.kind for row in executions.of_message(session, message_id)]

    wait_until(lambda: app.journal.length() == 0, description="everything is recorded")
    found: list[str] = read()
    return found


@pytest.mark.parametrize(
    ("ways", "error"),
    [
        ("nnnnnnnnnb", "BusinessError"),  # at once, although nine of ten network attempts are used
        ("nnnnnnnnnn", "ConnectionError"),
        ("ooooo", "RuntimeError"),
        ("nnnnnnnnnoooon", "ConnectionError"),  # the tenth of its kind, after four of another
        ("nooooo", "RuntimeError"),
    ],
)
def test_each_kind_has_its_own_count(live_app: ConventionsApp, ways: str, error: str) -> None:
    """In one line of attempts: the letter has all of them."""
    sent = Shaky.delay(ways)
    letter = wait_for_letter(live_app, sent.id)
    assert (letter.error, letter.attempts) == (error, len(ways))
    assert kinds(live_app, sent.id) == ["retried"] * (len(ways) - 1) + ["dead"]
    wait_until_empty(live_app)


def test_what_the_kinds_leave_is_enough(live_app: ConventionsApp) -> None:
    """Nine network errors and four others: the fourteenth attempt succeeds."""
    sent = Shaky.delay("nononononnnnn.")
    assert sent.get(timeout=patient(20)) == 14


@pytest.mark.parametrize(("kind", "error", "attempts"), [
    ("b", "BusinessError", 1),
    ("n", "ConnectionError", 10),
    ("none", "RetryRequested", 5),
])  # fmt: skip
def test_a_manual_retry_goes_by_the_policy(live_app: ConventionsApp, kind: str, error: str, attempts: int) -> None:
    """Whoever asks for ever is a dead letter as soon as anyone else, whatever countdown it asks for."""
    letter = wait_for_letter(live_app, Again.delay(kind).id)
    assert (letter.error, letter.attempts) == (error, attempts)


def test_a_job_that_takes_its_own_place(live_app: ConventionsApp, tmp_path: Path) -> None:
    """`self.replace` with the same task and arguments: the message has the id, and all else, of the one that is still held."""
    Replaced.delay(tmp_path)
    wait_until_empty(live_app)
    assert (tmp_path / "ran").read_text(encoding="utf-8") == "once\n" * 2
