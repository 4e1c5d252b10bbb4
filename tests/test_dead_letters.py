"""Dead letters in SQL, on SQLite and PostgreSQL: kept whatever failed, grouped by cause, moved once (R17, R18)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC

import pytest

from conventions import dead_letters
from conventions.database import Database, utc_now
from conventions.dead_letters import STATES, Filter
from tests.databases import database  # noqa: F401  # a fixture
from tests.failures import charge_card, failure, get, groups, ids, raised_by, record


def test_everything_of_a_failure_is_kept(database: Database) -> None:
    """What failed, how often, for whom, with which payload, and where."""
    begin = utc_now()
    history = [{"attempt": 1, "error": "TimeoutError"}]
    record(database, failure(arguments={"user_id": 7, "name": "é\n'"}, history=history))
    letter = get(database)
    assert (letter.id, letter.task, letter.queue, letter.actor) == ("m1", "Send", "mail", "u-42")
    assert (letter.error, letter.error_message, letter.attempts, letter.state) == (
        "BusinessError",
        "no such user",
        5,
        "dead",
    )
    assert letter.arguments == {"user_id": 7, "name": "é\n'"}
    assert letter.headers == {"x_key": "k"}
    assert letter.history == history
    assert "in look_up" in letter.traceback
    assert begin <= letter.first_failed_at == letter.last_failed_at <= utc_now()
    assert letter.first_failed_at.tzinfo is UTC


def test_a_message_without_a_known_task_is_kept(database: Database) -> None:
    """Unknown task, unknown queue, an error that was never raised."""
    record(database, failure(task=None, queue=None, error=ValueError()))
    letter = get(database)
    assert (letter.task, letter.queue, letter.error_message) == (None, None, "")
    assert len(groups(database)) == 1


def test_a_letter_that_dies_again_is_the_same_letter(database: Database) -> None:
    """After a redrive that failed: dead again, with its first time and its last error."""
    record(database, failure())
    first = get(database)
    with database.session() as session:
        assert dead_letters.move(session, "m1", ("dead",), "redriven")
    record(database, failure(error=raised_by(charge_card), attempts=7))
    second = get(database)
    assert (second.state, second.attempts) == ("dead", 7)
    assert "declined" in second.error_message
    assert second.fingerprint != first.fingerprint
    assert second.first_failed_at == first.first_failed_at < second.last_failed_at
    assert ids(database, Filter()) == ["m1"]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (Filter(), {"a", "b", "c"}),
        (Filter(task="Send"), {"a", "b"}),
        (Filter(queue="long"), {"b"}),
        (Filter(error="KeyError"), {"c"}),
        (Filter(task="Send", queue="long"), {"b"}),
        (Filter(task="Send", error="KeyError"), set()),
        (Filter(state="redriven"), {"d"}),
        (Filter(state=None), {"a", "b", "c", "d"}),
        (Filter(state=None, group="nothing"), set()),
    ],
)
def test_filters_must_all_match(database: Database, which: Filter, expected: set[str]) -> None:
    """By state, task, queue, error and group; dead ones unless said otherwise."""
    record(database, failure("a"), failure("b", queue="long"), failure("c", KeyError("k"), task="Other"), failure("d"))
    with database.session() as session:
        dead_letters.move(session, "d", ("dead",), "redriven")
    assert set(ids(database, which)) == expected
    assert sum(group.count for group in groups(database, which)) == len(expected)


def test_the_newest_failures_are_listed_first(database: Database) -> None:
    """Up to the limit."""
    record(database, *(failure(f"m{number}") for number in range(5)), failure("m1"))
    assert ids(database, Filter(), limit=3) == ["m1", "m4", "m3"]


def test_a_letter_is_moved_once(database: Database) -> None:
    """Of four that redrive one letter at the same time, one may send it; for each of twenty letters."""
    letters = [f"m{number}" for number in range(20)]
    record(database, *map(failure, letters))
    together = threading.Barrier(4)

    def move_all(_: int) -> list[bool]:
        moved = []
        for letter in letters:
            together.wait(10)
            with database.session() as session:
                moved.append(dead_letters.move(session, letter, ("dead",), "redriven"))
        return moved

    with ThreadPoolExecutor(4) as pool:
        each = list(pool.map(move_all, range(4)))
    assert [sum(moved) for moved in zip(*each, strict=True)] == [1] * 20
    assert set(ids(database, Filter(state="redriven"))) == set(letters)


def test_only_the_states_that_are_named_are_left(database: Database) -> None:
    """A discarded letter is not redriven, an unknown one is not moved."""
    record(database, failure())
    with database.session() as session:
        assert not dead_letters.move(session, "nobody", STATES, "discarded")
        assert not dead_letters.move(session, "m1", ("redriving",), "redriven")
        assert dead_letters.move(session, "m1", ("dead", "redriving"), "discarded")
        assert not dead_letters.move(session, "m1", ("dead",), "redriven")
    assert get(database).state == "discarded"


def test_a_failed_transaction_records_and_moves_nothing(database: Database) -> None:
    """As when the redriven message could not be sent: the letter stays dead."""
    record(database, failure())

    def fail() -> None:
        with database.session() as session:
            dead_letters.move(session, "m1", ("dead",), "redriven")
            dead_letters.record(session, failure("m2"))
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert ids(database, Filter()) == ["m1"]
