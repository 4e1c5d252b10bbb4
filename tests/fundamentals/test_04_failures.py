"""Chapter 4: a failure is tried again by rule, or becomes a dead letter; it is never lost."""

from pathlib import Path

import pytest

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.dead_letters.resend import redrive
from tests.support import patient, wait_until
from tests.workers import Worker, wait_for_letter

SOON = RetryPolicy(attempts=3, first_wait=0.05, max_wait=0.2)


class FetchRate(ImmediateTask):
    """Fetch a rate from a service that fails at first."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    retry_policy = SOON

    def run(self, currency: str, fails: int) -> int:
        if self.attempt <= fails:
            raise RuntimeError(f"no rate of {currency} now")
        return self.attempt


class Withdraw(ImmediateTask):
    """Take money from an account that has none."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    retry_policy = SOON

    def run(self, account: int) -> None:
        raise BusinessError(f"account {account} is empty")


class Poll(ImmediateTask):
    """Ask again until there is an answer."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    retry_policy = SOON

    def run(self, question: str) -> str:
        if self.attempt < 2:
            raise self.retry(countdown=0.05)
        return f"{question} yes, at attempt {self.attempt}"


class Fussy(ImmediateTask):
    """Decide by itself which failures are worth another attempt."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    retry_policy = SOON

    def should_retry(self, error: Exception, attempts_made: int) -> bool:
        return "later" in str(error) and attempts_made < 3

    def run(self, answer: str) -> int:
        if self.attempt == 1:
            raise RuntimeError(answer)
        return self.attempt


class Deliver(ImmediateTask):
    """Deliver to a folder that somebody has to make first."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, folder: Path) -> None:
        if not folder.is_dir():
            raise BusinessError("no such folder")
        (folder / "delivered").touch()


def test_a_failure_is_tried_again() -> None:
    """The third attempt succeeds; `self.attempt` counts from 1."""
    assert FetchRate.delay("JPY", fails=2).get(timeout=patient(15)) == 3


def test_a_failure_is_logged_with_its_facts(worker: Worker) -> None:
    """One line has id, task, error and attempt (R9)."""
    message = FetchRate.delay("EUR", fails=1)
    message.get(timeout=patient(15))
    expected = f"failed: id={message.id} task={FetchRate.name} error=RuntimeError: no rate of EUR now attempt=1"
    worker.wait_for(expected)


def test_used_up_attempts_make_a_dead_letter(live_app: ConventionsApp) -> None:
    """The caller gets the last error, and the letter has the arguments and the number of attempts."""
    message = FetchRate.delay("USD", fails=99)
    with pytest.raises(RuntimeError, match="no rate of USD now"):
        message.get(timeout=patient(15))
    letter = wait_for_letter(live_app, message.id)
    assert (letter.task, letter.attempts, letter.error) == (FetchRate.name, 3, "RuntimeError")
    assert letter.arguments == {"currency": "USD", "fails": 99}


def test_a_business_error_is_never_retried(live_app: ConventionsApp) -> None:
    """No further attempt can fill an empty account (R16)."""
    message = Withdraw.delay(account=12)
    with pytest.raises(BusinessError, match="account 12 is empty"):
        message.get(timeout=patient(10))
    assert wait_for_letter(live_app, message.id).attempts == 1


def test_a_task_may_ask_for_another_attempt() -> None:
    """`raise self.retry()` goes by the same policy."""
    assert Poll.delay("ready?").get(timeout=patient(15)) == "ready? yes, at attempt 2"


def test_a_task_may_decide_for_itself(live_app: ConventionsApp) -> None:
    """`should_retry` overrules the policy."""
    assert Fussy.delay("later").get(timeout=patient(15)) == 2
    refused = Fussy.delay("never")
    with pytest.raises(RuntimeError, match="never"):
        refused.get(timeout=patient(10))
    assert wait_for_letter(live_app, refused.id).attempts == 1


def test_a_dead_letter_is_sent_again_once_its_cause_is_mended(live_app: ConventionsApp, tmp_path: Path) -> None:
    """A redrive keeps the id and the key, and has fresh attempts (R18)."""
    folder = tmp_path / "inbox"
    message = Deliver.delay(folder)
    wait_for_letter(live_app, message.id)
    folder.mkdir()
    assert redrive(live_app, message.id, "ann")
    wait_until((folder / "delivered").exists, description="delivered")
    wait_until(lambda: wait_for_letter(live_app, message.id).state == "redriven", description="its success is recorded")
