"""Dead letters in SQL, on SQLite and PostgreSQL: kept whatever failed, grouped by cause, moved once (R17, R18)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import threading
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta
from typing import Any

import pytest

from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters import record_letters
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.letters import STATES
from conventions.storage.database import Database, utc_now
from tests.databases import database  # noqa: F401  # a fixture
from tests.failures import charge_card, failure, get, groups, ids, raised_by, record
from tests.support import patient


def test_everything_of_a_failure_is_kept(database: Database) -> None:
    """What failed, how often, for whom, with which payload, and where."""
    begin = utc_now()
    record(database, failure(arguments={"user_id": 7, "name": "é\n'"}, fence=2**62, generation=3))
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
    assert (letter.generation, letter.fence, letter.message) == (3, 2**62, None)
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
    record(database, failure(fence=9))
    first = get(database)
    with database.session() as session:
        assert dead_letters.move(session, "m1", ("dead",), "redriven")
    record(database, failure(error=raised_by(charge_card), generation=1, attempts=1, fence=3))
    second = get(database)
    assert (second.state, second.attempts, second.generation, second.fence) == ("dead", 1, 1, 3)
    assert "declined" in second.error_message
    assert second.fingerprint != first.fingerprint
    assert second.first_failed_at == first.first_failed_at < second.last_failed_at
    assert ids(database, Filter()) == ["m1"]


@pytest.mark.parametrize(
    "earlier",
    [{"generation": 0, "attempts": 9, "fence": 9}, {"attempts": 1, "fence": 9}, {"fence": 1}],
    ids=["redrive", "attempt", "claim"],
)
def test_an_event_of_the_past_does_not_make_a_letter_dead_again(database: Database, earlier: dict[str, Any]) -> None:
    """Of an earlier redrive, attempt or claim, read late: it is no news, but for the first time."""
    record(database, failure(generation=1, attempts=2, fence=2))
    with database.session() as session:
        assert dead_letters.move(session, "m1", ("dead",), "redriven")
    past = utc_now() - timedelta(hours=1)
    late: dict[str, Any] = {"generation": 1, "attempts": 2, "fence": 2, "at": past, "arguments": {}, "stored": b"{}"}
    record(database, failure(**late | earlier))
    letter = get(database)
    assert (letter.state, letter.generation, letter.attempts, letter.fence) == ("redriven", 1, 2, 2)
    assert (letter.arguments, letter.message) == ({"user_id": 7}, None)
    assert letter.first_failed_at == past < letter.last_failed_at


def test_an_event_that_was_recorded_does_not_make_a_letter_dead_again(database: Database) -> None:
    """The recorder died before it could acknowledge, and the letter was redriven before the next one read."""
    entry = failure()
    record(database, entry)
    with database.session() as session:
        assert dead_letters.move(session, "m1", ("dead",), "redriven")
    record(database, entry)
    assert get(database).state == "redriven"


@pytest.mark.parametrize(
    "stored",
    [
        b'{"body": "W10=", "headers": {"a": "\\u0000\\ud800", "b": 1e400, "c": NaN}, "a": 1, "a": 1.50}',
        '{"headers": {"name": "é"}}'.encode(),
    ],
)
def test_a_message_is_kept_as_it_was(database: Database, stored: bytes) -> None:
    """Byte for byte, also what neither database holds as JSON."""
    record(database, failure(stored=stored))
    letter = get(database)
    assert letter.message is not None
    assert letter.message.encode() == stored
    assert dead_letters.message(letter)["headers"]


@pytest.mark.parametrize("stored", [b"", b"\xff\x00", b"{", b'{"a": "\0"}', b"[" * 100_000])
def test_bytes_that_are_no_message_are_kept_as_they_were(database: Database, stored: bytes) -> None:
    """Somebody put them into a queue."""
    record(database, failure(stored=stored))
    assert b64decode(dead_letters.message(get(database))["base64"]) == stored


def test_a_message_of_another_broker_comes_with_the_event(database: Database) -> None:
    """There the settle script does not hold it."""
    envelope = {"body": "W10=", "headers": {"id": "m1", "odd": "\0\ud800"}, "properties": {}}
    record(database, failure(message=envelope))
    assert dead_letters.message(get(database)) == envelope


def test_the_history_is_that_of_every_attempt(database: Database) -> None:
    """In the order of redrives and attempts, whatever the order in which they were read, up to its success."""
    entries = [
        failure(generation=1, attempts=1, error=ValueError("last"), worker="w2", release="r2", runtime=1.5),
        failure(attempts=2, error=ValueError("second")),
        failure(attempts=1, error=ValueError("first"), kind="retried"),
        failure("m2", error=ValueError("another message")),
        failure(kind="superseded"),
        failure(generation=2, attempts=1, kind="succeeded", failure=None, release="r3"),
    ]
    record(database, *entries)
    with database.session() as session:
        found = dead_letters.history(session, "m1")
        assert dead_letters.history(session, "nobody") == []
    assert dead_letters.failed_by(found) == "r2", "which is not the release that mended it"
    assert dead_letters.failed_by(found[:2]) is dead_letters.failed_by([]) is None
    assert [(one["generation"], one["attempt"], one["kind"], one["error_message"]) for one in found] == [
        (0, 1, "retried", "first"),
        (0, 2, "dead", "second"),
        (1, 1, "dead", "last"),
        (2, 1, "succeeded", None),
    ]
    assert found[2].pop("traceback") == "ValueError: last\n"
    assert found[2] == {
        "generation": 1, "attempt": 1, "kind": "dead", "error": "ValueError", "error_message": "last", "ended_at": entries[0].at,
        "worker": "w2", "release": "r2", "runtime": 1.5,
    }  # fmt: skip


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
            together.wait(patient(10))
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
            record_letters.record(session, [failure("m2")])
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert ids(database, Filter()) == ["m1"]
