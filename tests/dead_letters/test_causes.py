"""Dead letters are grouped by cause: task, type, and the innermost place in our code (R18)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from datetime import UTC, datetime, timedelta

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
