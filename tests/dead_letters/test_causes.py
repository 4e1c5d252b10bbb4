"""Dead letters are grouped by cause: task, type, and the innermost place in our code (R18)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from datetime import UTC, datetime, timedelta

import pytest

from conventions.dead_letters import groups as letter_groups
from conventions.dead_letters.filter import Filter
from conventions.storage.database import Database
from conventions.storage.tables import DeadLetterRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.failures import charge_card, failure, groups, ids, look_up, raised_by, record


def test_three_causes_are_three_groups(database: Database) -> None:
    """By task, type and place; the text, which differs each time, does not matter."""
    for number in range(3):
        record(database, failure(f"a{number}", raised_by(charge_card)))
    record(database, failure("b1", raised_by(look_up)), failure("b2", raised_by(look_up)))
    record(database, failure("c1", raised_by(look_up), task="Notify"))
    found = groups(database)
    assert [(group.count, group.task, group.error) for group in found] == [
        (3, "Send", "BusinessError"),
        (2, "Send", "BusinessError"),
        (1, "Notify", "BusinessError"),
    ]
    assert len({group.fingerprint for group in found}) == 3
    assert [group.example for group in found] == ["a2", "b2", "c1"]
    for group in found:
        assert group.first_seen <= group.last_seen
        assert group.last_seen.tzinfo is UTC
        assert len(ids(database, Filter(group=group.fingerprint))) == group.count
    assert groups(database, limit=1) == found[:1]


def test_first_and_last_times_span_a_group(database: Database) -> None:
    """From the first failure of any of its letters to the last one."""
    record(database, failure("a"), failure("b"))
    early = datetime(2026, 1, 1, tzinfo=UTC)
    with database.session() as session:
        session.get_one(DeadLetterRow, "a").first_failed_at = early
        session.get_one(DeadLetterRow, "b").last_failed_at = early + timedelta(days=9000)
    (group,) = groups(database)
    assert (group.first_seen, group.last_seen) == (early, early + timedelta(days=9000))


def test_a_group_names_the_releases_by_which_its_letters_died(database: Database) -> None:
    """Each letter counts once, by its last death; what is not known is left out."""
    for number in range(3):
        record(database, failure(f"old{number}", kind="retried", attempts=1, release="other"))
        record(database, failure(f"old{number}", release="r1"))
    record(database, failure("again", release="r1"), failure("again", release="r2", generation=1))
    record(database, failure("unknown"), failure("apart", raised_by(charge_card), release="r3"))
    largest, other = groups(database)
    assert list(largest.releases.items()) == [("r1", 3), ("r2", 1)]
    assert (largest.count, other.releases) == (5, {"r3": 1})


def test_the_releases_of_a_large_group_are_those_of_its_newest_letters(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page does not wait for a million executions, nor show a hundred releases."""
    monkeypatch.setattr(letter_groups, "SAMPLE", 3)
    monkeypatch.setattr(letter_groups, "FEW_RELEASES", 2)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for number, release in enumerate(("r0", "r0", "r1", "r2", "r3")):
        record(database, failure(f"m{number}", release=release, at=began + timedelta(minutes=number)))
    (group,) = groups(database)
    assert (group.count, group.releases) == (5, {"r1": 1, "r2": 1})
