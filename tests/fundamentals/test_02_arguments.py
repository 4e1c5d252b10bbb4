"""Chapter 2: arguments are what `run` declares, checked when they are sent."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from conventions import EVERY_ARGUMENT, ImmediateTask, PayloadError
from conventions.app import ConventionsApp
from tests.support import patient
from tests.workers import messages


class Describe(ImmediateTask):
    """Say of which type each argument is."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, day: date, price: Decimal, order: UUID, file: Path, tags: list[str]) -> list[str]:
        return [type(value).__name__ for value in (day, price, order, file, tags)]


class Invoice(ImmediateTask):
    """Make one invoice."""

    idempotent_on = ("order_id",)

    def run(self, order_id: int, note: str = "") -> None: ...


@pytest.fixture
def nothing_sent(app: ConventionsApp) -> ConventionsApp:
    """An application of its own, with no worker: whatever is sent stays to be seen."""
    return app


def test_typed_arguments_arrive_typed() -> None:
    """A message is JSON, but `run` gets the types that it declares."""
    sent = Describe.delay(date(2026, 1, 31), Decimal("9.90"), uuid4(), Path("a/b.csv"), ["new"])
    assert sent.get(timeout=patient(10)) == ["date", "Decimal", "UUID", "PosixPath", "list"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "missing a required argument: 'order_id'"),
        ({"order_id": 1, "nonsense": 2}, TypeError, "unexpected keyword argument 'nonsense'"),
        ({"order_id": "7"}, PayloadError, "'order_id': Input should be a valid integer"),
        ({"order_id": 1, "note": object()}, PayloadError, "'note'"),
    ],
)
def test_a_call_that_cannot_work_is_refused_where_it_is_written(
    nothing_sent: ConventionsApp, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The mistake is an error at the call, not a failed job an hour later; nothing is sent."""
    with pytest.raises(error, match=message):
        Invoice.delay(**arguments)
    assert messages(nothing_sent) == []


def test_large_data_does_not_travel_in_a_message(nothing_sent: ConventionsApp) -> None:
    """Above 64 KiB the message says to pass an id."""
    with pytest.raises(PayloadError, match="pass its id"):
        Invoice.delay(order_id=1, note="x" * 65_536)
    assert messages(nothing_sent) == []
