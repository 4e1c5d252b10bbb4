"""Chapter 3: a job is done once, however often its message is sent or delivered."""

from pathlib import Path

import pytest

from conventions import EVERY_ARGUMENT, IdempotencyConflict, ImmediateTask
from conventions.app import ConventionsApp
from tests.support import patient, wait_until
from tests.workers import wait_for_letter


class SendWelcome(ImmediateTask):
    """Put one welcome for one user into the outbox."""

    idempotent_on = ("user_id",)
    ignore_result = False

    def run(self, user_id: int, outbox: Path) -> str:
        with outbox.open("a") as lines:
            lines.write(f"welcome {user_id}\n")
        return f"sent by {self.request.id}"


class Ping(ImmediateTask):
    """Add a line to the outbox each time."""

    not_idempotent = "one line more does no harm"

    def run(self, outbox: Path) -> None:
        with outbox.open("a") as lines:
            lines.write("ping\n")


class Charge(ImmediateTask):
    """Charge one customer; the payment service takes an idempotency key of its own."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, customer_id: int, amount: int) -> str:
        return self.pay(customer_id, amount, key=self.idempotency_key)

    def pay(self, customer_id: int, amount: int, key: str) -> str:
        return f"customer {customer_id} paid {amount} by {key}"


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """A file that stands for the mail server."""
    return tmp_path / "outbox"


def test_the_same_job_runs_once(outbox: Path) -> None:
    """One of the messages is a duplicate: it does nothing, and returns what the other one returned."""
    first, second = SendWelcome.delay(1, outbox), SendWelcome.delay(1, outbox)
    assert first.get(timeout=patient(15)) == second.get(timeout=patient(15))
    assert outbox.read_text() == "welcome 1\n"


def test_other_arguments_are_another_job(outbox: Path) -> None:
    """Only the arguments that `idempotent_on` names are compared."""
    assert SendWelcome.delay(2, outbox).get(timeout=patient(10)) != SendWelcome.delay(3, outbox).get(
        timeout=patient(10)
    )


def test_a_key_used_with_other_arguments_is_a_conflict(live_app: ConventionsApp, outbox: Path) -> None:
    """One key stands for one payload; a second payload is not run and not lost: it is a dead letter."""
    SendWelcome.delay(4, outbox).get(timeout=patient(10))
    other = SendWelcome.delay(4, outbox.with_name("elsewhere"))
    with pytest.raises(IdempotencyConflict, match="was used by message"):
        other.get(timeout=patient(10))
    assert wait_for_letter(live_app, other.id).error == "IdempotencyConflict"


def test_a_task_may_say_why_it_needs_no_key(outbox: Path) -> None:
    """`not_idempotent` is a reason, and each message runs."""
    Ping.delay(outbox)
    Ping.delay(outbox)
    wait_until(lambda: outbox.exists() and outbox.read_text() == "ping\nping\n", description="two lines")


def test_a_call_may_bring_its_own_key() -> None:
    """What is the same job is then up to the caller."""
    first = Charge.apply_async((7, 100), idempotency_key="order-7")
    again = Charge.apply_async((7, 100), idempotency_key="order-7")
    assert first.get(timeout=patient(15)) == again.get(timeout=patient(15)) == "customer 7 paid 100 by order-7"


def test_the_key_is_there_to_be_passed_on() -> None:
    """`self.idempotency_key` is the same in every attempt and for every duplicate."""
    assert Charge.delay(customer_id=8, amount=5).get(timeout=patient(10)) == Charge.delay(8, 5).get(timeout=patient(10))
