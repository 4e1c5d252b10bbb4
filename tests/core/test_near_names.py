"""Which names are near one that does not exist."""

import pytest

from conventions.core.near_names import did_you_mean, near_names

KNOWN = ("mail", "immediate", "long", "shop.work.Newsletter", "shop.money.Payments", "shop.money.Payment")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("mial", ["mail"]),
        ("Newslettr", ["shop.work.Newsletter"]),
        ("Paymnts", ["shop.money.Payments", "shop.money.Payment"]),
        ("shop.work.Newslettr", ["shop.work.Newsletter"]),
        ("xyz", []),
        ("", []),
    ],
)
def test_near_names(name: str, near: list[str]) -> None:
    """In full, or by the last part of a task's name."""
    assert near_names(name, KNOWN) == near


def test_the_question() -> None:
    """It stands behind what is said."""
    assert did_you_mean("mial", KNOWN) == " (did you mean mail?)"
    assert did_you_mean("Paymnts", KNOWN) == " (did you mean shop.money.Payments or shop.money.Payment?)"
    assert did_you_mean("xyz", KNOWN) == ""
