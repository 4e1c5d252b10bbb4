"""The journal is read ahead of SQL: each entry once, in its order, and none is lost whatever fails (protocol 15)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError  # noqa: A004  # redis-py's

from conventions.core.lease_timings import USUAL
from conventions.metrics.event_counter import EventCounter
from conventions.metrics.read_counts import Counts
from conventions.recording import new_entries
from conventions.recording.new_entries import AT_ONCE, GROUP
from conventions.recording.recorder import Recorder
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.storage.tables import ExecutionRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.recorded import append, clear, contents, drain, entry, event, left, recorder
from tests.support import wait_until
from tests.workers import forget


def send(store: Store, first: int, last: int) -> None:
    """So many successes, by number."""
    append(store, *(entry(event(f"m{number}")) for number in range(first, last)))


def counted(store: Store) -> int:
    """How many events were counted."""
    return sum(counts.get("succeeded", 0) for _, counts in Counts(store).totals().items())


def started(store: Store, database: Database) -> Recorder:
    """A recorder that has recorded one event, and so has a group."""
    one = recorder(store, database)
    append(store, entry(event("first")))
    assert drain(one) == [1]
    return one


def test_what_is_counted_waits_for_sql_in_memory(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server does not give it again, and the batches are those of the stream."""
    one = started(store, database)
    send(store, 0, AT_ONCE + 7)
    one.count()
    assert counted(store) == AT_ONCE + 8
    with monkeypatch.context() as patched:
        patched.setattr(store.redis, "xreadgroup", None)  # nothing is read for it
        assert one.drain_once(limit=AT_ONCE + 2) == AT_ONCE + 2
        assert one.drain_once(limit=5) == 5
    assert drain(one) == []
    assert len(contents(database, ExecutionRow)) == AT_ONCE + 8
    assert left(store) == (0, 0)


def test_what_waits_and_what_is_new_are_one_batch(store: Store, database: Database) -> None:
    """So a recorder that lags takes as much as it may."""
    one = started(store, database)
    send(store, 0, 3)
    one.count()
    send(store, 3, 9)
    assert one.drain_once(limit=8) == 8
    assert one.drain_once(limit=8) == 1
    assert counted(store) == 10


def test_beyond_its_room_it_is_counted_and_read_again_for_sql(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While SQL is away the journal may hold a million entries; memory does not."""
    one = started(store, database)
    monkeypatch.setattr(new_entries, "MOST_AHEAD", 1)
    send(store, 0, AT_ONCE + 3)
    one.count()
    send(store, AT_ONCE + 3, AT_ONCE + 9)
    one.count()
    assert counted(store) == AT_ONCE + 10
    assert left(store) == (AT_ONCE + 9, AT_ONCE)  # the others are nobody's so far
    assert sum(drain(one)) == AT_ONCE + 9
    assert counted(store) == AT_ONCE + 10


def test_what_waits_for_long_is_not_abandoned(store: Store, database: Database) -> None:
    """Where SQL is slow it waits for longer than a dead recorder's entries do."""
    one = recorder(store, database, timings=replace(USUAL, abandoned_after=0.0))
    append(store, entry(event("first")))
    assert drain(one) == [1]
    send(store, 0, 4)
    one.count()
    assert drain(one) == [4]


def test_while_sql_is_away_nothing_more_is_taken_from_the_stream(store: Store, database: Database) -> None:
    """Each try would take a part more, and the server would remember a million entries as read by somebody."""
    one = started(store, database)
    send(store, 0, 3)
    for _ in range(2):  # before the second try it knows
        _fails(one, "_commit", Away())
    send(store, 3, 6)
    one.count()
    assert counted(store) == 7
    assert left(store) == (6, 3)


def test_a_recorder_that_lost_the_lead_leaves_what_it_has_read(store: Store, database: Database) -> None:
    """Who leads now takes it over, and records each event once; the first one may come back."""
    one = started(store, database)
    send(store, 0, 4)
    one.count()
    other = Recorder(store, lambda: database, timings=replace(USUAL, abandoned_after=0.05))
    other.name = "other:1"
    other._new._name = "other:1"
    assert wait_until(lambda: drain(other)) == [4]
    one._stand_by()
    send(store, 4, 6)
    assert drain(one) == [2]
    assert counted(store) == 7
    assert len(contents(database, ExecutionRow)) == 7
    assert left(store) == (0, 0)


def test_what_another_has_read_and_not_counted_is_counted_first(store: Store, database: Database) -> None:
    """A recorder that died between the two. Its entries are still in the stream, before those that are read now."""
    one = started(store, database)
    send(store, 0, 3)
    redis: Any = store.redis
    redis.xreadgroup(GROUP, "gone:1", {store.key("journal"): ">"})
    send(store, 3, 5)
    one._new.take(500, 0.0)
    assert counted(store) == 6
    assert EventCounter(store).count_all() == 0


def test_a_count_that_fails_loses_nothing(store: Store, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what was read ahead, nor what was read for SQL."""
    one = started(store, database)

    def away(*_: Any) -> None:
        raise ConnectionError("away")

    with monkeypatch.context() as patched:
        patched.setattr(store, "run", away)
        send(store, 0, 3)
        with pytest.raises(ConnectionError):
            one.count()
        send(store, 3, 6)
        with pytest.raises(ConnectionError):
            one.drain_once()
    assert sum(drain(one)) == 6
    assert counted(store) == 7
    assert len(contents(database, ExecutionRow)) == 7
    assert left(store) == (0, 0)


def test_a_journal_that_was_deleted_is_made_anew(store: Store, database: Database) -> None:
    """Its group is gone with it; counting goes on."""
    one = started(store, database)
    one.drain_once()
    store.redis.delete(store.key("journal"))
    one.count()
    send(store, 0, 2)
    one.count()
    assert sum(drain(one)) == 2
    one.count()
    assert counted(store) == 3


class Away(Exception):
    """SQL does not answer."""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.sampled_from(
            ["send", "count", "record", "record some", "sql is away", "redis is away", "dies", "loses lead"]
        ),
        max_size=25,
    ),
    room=st.sampled_from([1, 600, 1 << 20]),
    part=st.sampled_from([1, 2, 500]),
)
def test_each_event_is_counted_and_recorded_once(
    store: Store, sqlite: Database, steps: list[str], room: int, part: int
) -> None:
    """In any order of reading, recording and faults. What a recorder leaves is its own again, as after a restart under its name."""
    clear(sqlite)
    forget(store)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(new_entries, "MOST_AHEAD", room)
        patched.setattr(new_entries, "AT_ONCE", part)
        one, sent = recorder(store, sqlite), 0
        for step in [*steps, "record"]:
            match step:
                case "send":
                    send(store, sent, sent + 3)
                    sent += 3
                case "count":
                    one.count()
                case "record":
                    drain(one, 4)
                case "record some":
                    one.drain_once(2)
                case "sql is away":
                    _fails(one, "_commit", Away())
                case "redis is away":
                    _fails(one, "_acknowledge", ConnectionError("away"))
                case "dies":
                    one = recorder(store, sqlite)
                case "loses lead":
                    one._stand_by()
            assert counted(store) >= len(contents(sqlite, ExecutionRow))
    assert counted(store) == sent == len(contents(sqlite, ExecutionRow))
    assert left(store) == (0, 0)


def _fails(one: Recorder, step: str, error: Exception) -> None:
    def failing(*_: Any) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(one, step, failing)
        try:
            one.drain_once(3)
        except type(error):
            pass


@pytest.fixture
def sqlite(tmp_path: Any, new_database: Any) -> Any:
    """A migrated SQLite."""
    made = Database(new_database(tmp_path))
    yield made
    made.dispose()
