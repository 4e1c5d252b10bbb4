"""What is done to many letters: nothing when there are others than those that somebody agreed to (R18)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import math
from datetime import timedelta
from typing import Any

import pytest
from redis.exceptions import RedisError
from sqlalchemy.exc import InvalidRequestError

from conventions.app import ConventionsApp
from conventions.core.errors import SelectionChanged
from conventions.dead_letters import discard_letters, redrive_rows, redrive_selection
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.discard_letters import NAMED_AT_MOST
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_rows import CANARY_AT_MOST, RATES, RedriveOrder
from conventions.records import audit
from conventions.storage.database import Database, utc_now
from conventions.storage.redis_store import Store
from tests.databases import database  # noqa: F401  # a fixture
from tests.failures import failure, ids, record
from tests.redriving import begin


def test_no_letter_is_given_up_that_nobody_saw(database: Database) -> None:
    """Three where two were agreed to: none goes."""
    record(database, *(failure(f"m{number}") for number in range(3)))
    for expected in (2, 4):
        with pytest.raises(SelectionChanged, match="3 dead letters now"), database.session() as session:
            discard_letters.discard(session, Filter(), "u-9", "why", expected)
    assert len(ids(database, Filter())) == 3
    with database.session() as session:
        assert not audit.listing(session, 9)
        assert discard_letters.discard(session, Filter(), "u-9", "why", 3) == 3


def test_the_audit_names_what_was_given_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are few enough; else the filter must do."""
    monkeypatch.setattr(discard_letters, "NAMED_AT_MOST", 2)
    assert NAMED_AT_MOST == 1000
    record(database, *(failure(f"m{number}") for number in range(5)))
    with database.session() as session:
        discard_letters.discard(session, Filter(ids=("m0", "m1")), "u-9", "two")
        discard_letters.discard(session, Filter(), "u-9", "three")
    with database.session() as session:
        named = {entry.reason: entry.after for entry in audit.listing(session, 9)}
    assert sorted(named["two"].pop("ids")) == ["m0", "m1"]
    assert named == {"two": {"discarded": 2}, "three": {"discarded": 3}}


def test_no_redrive_of_letters_that_nobody_saw(database: Database) -> None:
    """Those that were redriven too often count only when it is meant."""
    record(database, failure("m1"), failure("m2", generation=3))
    for again, expected in ((False, 2), (True, 1)):
        with pytest.raises(SelectionChanged), database.session() as session:
            redrive_rows.start(session, RedriveOrder(Filter(), "u-9", again=again, expected=expected))
    with database.session() as session:
        assert not redrive_rows.listing(session, 9)
        assert redrive_rows.start(session, RedriveOrder(Filter(), "u-9", expected=1)).total == 1
        assert redrive_rows.start(session, RedriveOrder(Filter(), "u-9", again=True, expected=2)).total == 2


@pytest.mark.parametrize("which", [Filter(), Filter(newer_than=timedelta(hours=1)), Filter(ids=("m0", "m1"))])
def test_what_was_seen_stays_what_it_was(database: Database, monkeypatch: pytest.MonkeyPatch, which: Filter) -> None:
    """Whatever dies, dies again or becomes older meanwhile; whatever this machine's clock says beside that of the failures."""
    counted_at = utc_now()
    server = counted_at + timedelta(minutes=9)  # its clock is before ours
    record(database, *(failure(f"m{n}", at=server - timedelta(minutes=68)) for n in range(2)))
    with database.session() as session:
        number, seen = dead_letters.seen(session, which)
    assert (number, Filter.of(seen.words()), seen.open, seen.name) == (2, seen, which, which.name)
    monkeypatch.setattr(dead_letters, "utc_now", lambda: counted_at + timedelta(minutes=2))
    monkeypatch.setattr(redrive_selection, "utc_now", lambda: counted_at + timedelta(minutes=2))
    record(database, failure("late", at=server))
    with database.session() as session:
        assert dead_letters.newer(session, seen) == (0 if which.ids else 1)
        assert dead_letters.newer(session, which) == 0, "nobody has counted these"
    assert ids(database, seen) == ["m1", "m0"]
    with database.session() as session:
        assert redrive_rows.start(session, RedriveOrder(seen, "u-9", expected=2)).total == 2
        assert redrive_rows.under_way(session, which) is not None, "also for who has opened the form at another moment"
    record(database, failure("m0", attempts=6, at=server + timedelta(seconds=1)))
    with pytest.raises(SelectionChanged, match=r"of the 2 .* 1 are still there"), database.session() as session:
        discard_letters.discard(session, seen, "u-9", "why", 2)
    with database.session() as session:
        assert discard_letters.discard(session, seen, "u-9", "why", 1) == 1


def test_nothing_that_was_seen(database: Database) -> None:
    """Has no newest: what comes then was not counted."""
    with database.session() as session:
        assert dead_letters.seen(session, Filter())[0] == 0
        seen = dead_letters.seen(session, Filter())[1]
    record(database, failure("m1"))
    with pytest.raises(SelectionChanged, match="1 dead letters now"), database.session() as session:
        discard_letters.discard(session, seen, "u-9", "why", 0)


@pytest.mark.parametrize(
    "numbers",
    [
        {"canary": -1},
        {"canary": CANARY_AT_MOST + 1},
        {"rate": 0.0},
        {"rate": RATES[0] / 2},
        {"rate": RATES[1] * 2},
        {"rate": math.inf},
        {"rate": math.nan},
        {"stop_at": -1.0},
        {"stop_at": 101.0},
        {"stop_at": math.nan},
    ],
)
def test_numbers_that_cannot_be_meant(numbers: dict[str, Any]) -> None:
    """A rate of zero would never end, and an endless one would know no slice."""
    name = next(iter(numbers))
    with pytest.raises(ValueError, match=name):
        RedriveOrder(Filter(), "u-9", **numbers)


def test_a_listing_without_what_is_large(database: Database) -> None:
    """A page of 50 letters needs no message of a megabyte, and says so when it is asked for one."""
    record(database, failure("m1", stored=b"{}"))
    with database.session() as session:
        (letter,) = dead_letters.listing(session, Filter(), 9, brief=True)
        assert (letter.id, letter.error) == ("m1", "BusinessError")
        for name in ("message", "arguments", "headers", "traceback"):
            with pytest.raises(InvalidRequestError):
                getattr(letter, name)


def test_a_redrive_that_nobody_can_send_is_not_begun(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for it is told at once, and no row waits."""
    record(app.database, failure("m1"))
    away = Store("redis://127.0.0.1:1", "none")
    monkeypatch.setattr(app, "store", away)
    with pytest.raises(RedisError):
        begin(app, RedriveOrder(Filter(), "u-9"))
    with app.database.session() as session:
        assert not redrive_rows.listing(session, 9)
