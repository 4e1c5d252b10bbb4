"""Which dead letters: every word of the filter, on SQLite and PostgreSQL, and as it is kept in a row (R18)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from datetime import timedelta

import pytest

from conventions.core.time_units import age
from conventions.dead_letters import groups as letter_groups
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.filter import Filter
from conventions.storage.database import Database, utc_now
from tests.databases import database  # noqa: F401  # a fixture
from tests.failures import failure, ids, record


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (Filter(text="NO SUCH"), {"a", "b", "c"}),
        (Filter(text="100%"), set()),
        (Filter(text="山田"), {"c"}),
        (Filter(text="look_up"), {"a", "b", "c"}),
        (Filter(arguments=(("user_id", "7"),)), {"a"}),
        (Filter(arguments=(("user_id", "8"),)), {"b"}),
        (Filter(arguments=(("name", "山田"),)), {"c"}),
        (Filter(arguments=(("flag", "true"),)), {"c"}),
        (Filter(arguments=(("user_id", "7"), ("flag", "true"))), set()),
        (Filter(arguments=(("nothing", "7"),)), set()),
        (Filter(older_than=timedelta(hours=1)), {"b"}),
        (Filter(newer_than=timedelta(hours=1)), {"a", "c"}),
        (Filter(ids=("a", "c", "x")), {"a", "c"}),
    ],
)
def test_each_word_narrows(database: Database, which: Filter, expected: set[str]) -> None:
    """Text in any case and in arguments, values as text or JSON, ages, ids; the same when read from a row."""
    record(
        database,
        failure("a"),
        failure("b", arguments={"user_id": "8"}, at=utc_now() - timedelta(hours=2)),
        failure("c", arguments={"name": "山田", "flag": True}),
    )
    assert set(ids(database, which)) == expected
    assert Filter.of(which.words()) == which


def test_pages_follow_each_other(database: Database) -> None:
    """Each letter once, also where many failed at one moment."""
    now = utc_now()
    record(database, *(failure(f"m{number}", at=now) for number in range(7)))
    with database.session() as session:
        found, after = [], None
        while page := dead_letters.listing(session, Filter(), 3, after):
            found += [letter.id for letter in page]
            after = dead_letters.position(page[-1])
        assert found == [f"m{number}" for number in reversed(range(7))]
        assert [letter.id for letter in dead_letters.every(session, Filter())] == found
        assert dead_letters.count(session, Filter()) == 7


def test_a_sparkline_has_a_bar_for_each_hour(database: Database) -> None:
    """The last one is the present hour; what is older than a day is in none."""
    now = utc_now()
    hours = [0.1, 0.2, 1.5, 23.9, 25]
    record(database, *(failure(f"m{number}", at=now - timedelta(hours=one)) for number, one in enumerate(hours)))
    with database.session() as session:
        (group,) = letter_groups.groups(session, Filter(), 10)
        lines = letter_groups.sparklines(session, Filter(), [group.fingerprint], now)
    line = lines[group.fingerprint]
    assert (len(line), line[-1], line[-2], line[0], sum(line)) == (24, 2, 1, 1, 4)


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("15m", 900), ("2h30m", 9000), ("7d", 604800)])
def test_ages_are_read(text: str, seconds: int) -> None:
    """One unit, or several from the largest to the smallest."""
    assert age(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "7", "h", "1m2h", "-1d", "99999999999999d"])
def test_an_age_that_cannot_be_read_says_how_to_write_it(text: str) -> None:
    """Also one that no calendar holds."""
    with pytest.raises(ValueError, match=r"length of time|too long"):
        age(text)
