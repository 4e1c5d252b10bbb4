"""Dead letters are grouped by cause: task, type, and the innermost place in our code (R18)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from conventions import dead_letters
from conventions.database import Database, DeadLetterRow
from conventions.dead_letters import Filter
from conventions.errors import IdempotencyConflict
from tests.databases import database  # noqa: F401  # a fixture
from tests.failures import charge_card, failure, groups, ids, look_up, raised_by, record


def parse_answer() -> None:
    """A cause whose innermost frame is Python's own."""
    json.loads("no json")


def parse_file() -> None:
    """Another one."""
    json.loads("{")


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
    assert [group.example for group in found] == ["a0", "b1", "c1"]
    for group in found:
        assert group.first_seen <= group.last_seen
        assert group.last_seen.tzinfo is UTC
        assert len(ids(database, Filter(group=group.fingerprint))) == group.count
    assert groups(database, limit=1) == found[:1]


def test_causes_that_meet_in_python_s_own_library_are_told_apart() -> None:
    """The innermost frame of our code counts, not json's decoder."""
    assert place(parse_answer) != place(parse_file)
    assert place(parse_answer) == place(parse_answer)


def place(function: Callable[[], object]) -> str:
    """The fingerprint of a function's error."""
    return dead_letters.fingerprint("Send", raised_by(function))


def test_a_fingerprint_survives_a_moved_line_and_another_process() -> None:
    """It has no line number and no hash of this process in it."""
    source = "def run():\n    raise ValueError('x')\n"
    one, two = (compile(prefix + source, "/srv/jobs.py", "exec") for prefix in ("", "\n\n# moved\n"))

    def fails(code: Any) -> Callable[[], None]:
        namespace: dict[str, Any] = {"__name__": "jobs"}
        exec(code, namespace)
        return namespace["run"]  # type: ignore[no-any-return]  # made just now

    assert place(fails(one)) == place(fails(two)) == "69c28b6a111cdb5a"


def test_errors_of_other_types_at_one_place_are_other_causes() -> None:
    """The type is part of the cause."""

    def fail(cls: type[Exception]) -> None:
        raise cls

    assert place(lambda: fail(ValueError)) != place(lambda: fail(TypeError))
    assert dead_letters.fingerprint("Send", IdempotencyConflict("never raised"))


def test_first_and_last_times_span_a_group(database: Database) -> None:
    """From the first failure of any of its letters to the last one."""
    record(database, failure("a"), failure("b"))
    early = datetime(2026, 1, 1, tzinfo=UTC)
    with database.session() as session:
        session.get_one(DeadLetterRow, "a").first_failed_at = early
        session.get_one(DeadLetterRow, "b").last_failed_at = early + timedelta(days=9000)
    (group,) = groups(database)
    assert (group.first_seen, group.last_seen) == (early, early + timedelta(days=9000))
