"""Chapter 8: `self.transaction()` commits the effect and its record together, so that it happens exactly once."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from conventions import EVERY_ARGUMENT, ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from tests.support import patient
from tests.workers import forget


class Book(ImmediateTask):
    """Book one order in the business database."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    retry_policy = RetryPolicy(first_wait=0.05, max_wait=0.2)

    def run(self, order_id: int, fails: int = 0) -> str:
        receipt = f"receipt of attempt {self.attempt}"
        with self.transaction() as session:
            session.execute(text("INSERT INTO bookings (order_id) VALUES (:id)"), {"id": order_id})
            if self.attempt <= fails:
                raise RuntimeError("after the insert, before the commit")
            session.info["result"] = receipt
        return receipt


@pytest.fixture(autouse=True)
def _table(live_app: ConventionsApp) -> None:
    """A table of the business; nothing but the transaction keeps an order from being booked twice."""
    with live_app.database.session() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS bookings (order_id INTEGER NOT NULL)"))


@pytest.fixture
def bookings(live_app: ConventionsApp) -> Callable[[int], int]:
    """How often an order was booked."""

    def count(order_id: int) -> int:
        with live_app.database.session() as session:
            found = session.scalar(text("SELECT count(*) FROM bookings WHERE order_id = :id"), {"id": order_id})
            return int(found or 0)

    return count


def test_a_failed_attempt_leaves_nothing(bookings: Callable[[int], int]) -> None:
    """The insert of the first attempt is rolled back, the second one books."""
    assert Book.delay(1, fails=1).get(timeout=patient(15)) == "receipt of attempt 2"
    assert bookings(1) == 1


def test_the_effect_stays_single_when_redis_forgets(live_app: ConventionsApp, bookings: Callable[[int], int]) -> None:
    """Redis is emptied of every claim; the database still knows, and the duplicate gets the first receipt."""
    assert Book.delay(2).get(timeout=patient(10)) == "receipt of attempt 1"
    forget(live_app.store, "claim")
    assert Book.delay(2).get(timeout=patient(10)) == "receipt of attempt 1"
    assert bookings(2) == 1
