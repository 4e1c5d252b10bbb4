"""The counts in Redis are those of the rows in SQL, whoever counts, however often, and whatever dies meanwhile."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from conventions.core.error_text import FailureText
from conventions.metrics import event_counter
from conventions.metrics.event_counter import EventCounter
from conventions.metrics.event_sums import errors_in
from conventions.metrics.read_counts import Counts
from conventions.metrics.series import Series
from conventions.records.journal import Journal
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.storage.tables import ExecutionRow
from tests.recorded import append, clear, contents, drain, entry, event, left, recorder
from tests.workers import forget

AT = 1_700_000_000_000
MINUTE = AT // 60_000
SEND = Series("Send", "mail")


def totals(store: Store) -> dict[tuple[str, str, str], int]:
    """How many events of each kind were counted, by task and queue."""
    kinds = ("succeeded", "retried", "dead", "superseded", "duplicate")
    found = Counts(store).totals().items()
    return {
        (series.task, series.queue, kind): counts[kind] for series, counts in found for kind in kinds if kind in counts
    }


def rows(database: Database) -> dict[tuple[str, str, str], int]:
    """How many rows of each kind there are, by task and queue."""
    return dict(Counter((one["task"], one["queue"], one["kind"]) for one in contents(database, ExecutionRow)))


lives = st.lists(
    st.tuples(
        st.sampled_from(["m1", "m2", "m3"]),
        st.integers(1, 3),  # attempt
        st.sampled_from(["dead", "retried", "succeeded", "succeeded", "duplicate"]),
        st.sampled_from(["mail", "other"]),
        st.booleans(),  # refused
        st.booleans(),  # with a claim
    ),
    max_size=12,
    unique_by=lambda one: (one[0], one[1], "superseded" if one[4] else one[2]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    life=lives,
    steps=st.lists(st.sampled_from(["count", "other counts", "count fails", "record", "dies", "append"]), max_size=20),
)
def test_the_counts_are_the_rows(store: Store, new_sqlite: Database, life: list[Any], steps: list[str]) -> None:
    """In any order of counting, recording and deaths between the two."""
    clear(new_sqlite)
    forget(store)
    waiting = [
        entry(
            event(id_, kind, attempt=attempt, queue=queue, runtime=0.2),
            fence=int(claimed),
            at=AT + n,
            **({"refused": "1"} if refused else {}),
        )
        for n, (id_, attempt, kind, queue, refused, claimed) in enumerate(life)
    ]
    counters, records = [EventCounter(store), EventCounter(store)], recorder(store, new_sqlite)
    redis: Any = store.redis
    for step in [*steps, *["append"] * len(waiting), "record"]:
        match step:
            case "append" if waiting:
                append(store, waiting.pop(0))
            case "count":
                counters[0].count_all()
            case "other counts":
                counters[1].count_all()
            case "count fails":  # it has read, and the server takes nothing
                counters[0]._sums_of(redis.xrange(store.key("journal")))
            case "dies":
                counters[0] = EventCounter(store)
                records = recorder(store, new_sqlite)
            case "record":
                drain(records, 2)
    assert totals(store) == rows(new_sqlite)
    assert left(store) == (0, 0)


@pytest.fixture
def new_sqlite(tmp_path: Any, new_database: Callable[[Any], str]) -> Any:
    """A migrated SQLite."""
    database = Database(new_database(tmp_path))
    yield database
    database.dispose()


def test_the_last_counted_is_asked_once_for_each_part(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again once in a minute, and others may have counted meanwhile: what they have counted is not counted once more."""
    counter = EventCounter(store)
    append(store, *(entry(event(f"m{n}")) for n in range(3)))
    found: Any = store.redis.xrange(store.key("journal"))
    add = EventCounter._add

    def others_were_quicker(one: EventCounter, *given: Any) -> int:
        with monkeypatch.context() as patched:
            patched.setattr(EventCounter, "_add", add)
            EventCounter(store).count_all()
        one._looks_at = 0.0
        return add(one, *given)

    monkeypatch.setattr(EventCounter, "_add", others_were_quicker)
    counter.count(dict(found))
    assert counter.count_all() == 0
    assert totals(store) == {("Send", "mail", "succeeded"): 3}


def test_nothing_is_removed_before_it_is_counted(
    store: Store, new_sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Redis refuses the count, the entry stays; it is recorded once, and counted once, later."""
    records = recorder(store, new_sqlite)

    def refused(_: bytes) -> None:
        raise RedisConnectionError("away")

    append(store, entry(event()))
    with monkeypatch.context() as patched:
        patched.setattr(records.counter, "count_up_to", refused)
        with pytest.raises(RedisConnectionError):
            records.drain_once()
    assert Journal(store).length() == 1
    assert drain(records) == [1]
    assert totals(store) == {("Send", "mail", "succeeded"): 1}


def test_counting_needs_no_sql(store: Store) -> None:
    """While SQL is away events wait, and are counted already."""
    append(store, *(entry(event(f"m{n}", runtime=0.1, wait=2.0)) for n in range(3)))
    assert Counts(store).lag()[0] == 3
    assert EventCounter(store).count_all() == 3
    assert totals(store) == {("Send", "mail", "succeeded"): 3}
    assert Counts(store).lag() == (0, 0.0)
    assert Journal(store).length() == 3


def test_an_event_that_was_written_twice_counts_once(store: Store) -> None:
    """Its writer had no answer; in SQL it is one row. One with a claim cannot be written twice."""
    counter = EventCounter(store)
    Journal(store).append([event("m1", "dead"), event("m1", "dead"), event("m2", "dead")])
    counter.count_all()
    Journal(store).append([event("m1", "dead")])
    counter.count_all()
    assert totals(store) == {("Send", "mail", "dead"): 2}


def test_what_is_no_event_is_passed_over(store: Store) -> None:
    """The recorder puts it aside, or it is the action of a person."""
    append(store, {"event": b"{"}, {"deed": "{}"}, {"other": "1"}, entry(event()))
    assert EventCounter(store).count_all() == 4
    assert totals(store) == {("Send", "mail", "succeeded"): 1}


def test_counts_by_minute_live_for_two_hours(store: Store) -> None:
    """And those since the beginning for ever."""
    append(store, entry(event(), at=AT), entry(event("m2"), at=AT + 60_000))
    EventCounter(store).count_all()
    found = Counts(store).minutes(MINUTE, MINUTE + 1)
    assert [found[minute][SEND]["succeeded"] for minute in (MINUTE, MINUTE + 1)] == [1, 1]
    redis: Any = store.redis
    assert 7_700_000 < redis.pttl(store.key("counts", "minute", str(MINUTE))) <= 7_800_000
    assert redis.pttl(store.key("counts", "total")) == -1


def test_how_many_are_tried_again_by_queue_and_cause(store: Store) -> None:
    """From the first failure to the end; the cause knows since when, by which worker and release."""
    counter, who = EventCounter(store), {"worker": "w1@a", "release": "r1"}
    refused = FailureText("ConnectionRefusedError", "refused", "", "f1")
    append(store, *(entry(event(f"m{n}", "retried", failure=refused, **who), at=AT + n) for n in range(5)))
    counter.count_all()
    (cause,) = Counts(store).causes()
    assert Counts(store).retrying() == {"mail": 5}
    assert (cause.task, cause.error, cause.message, cause.retrying, cause.retried, cause.dead) == (
        "Send",
        "ConnectionRefusedError",
        "refused",
        5,
        5,
        0,
    )
    assert (cause.since, cause.last, cause.workers, cause.releases) == (
        AT / 1000,
        (AT + 4) / 1000,
        {"w1@a": 5},
        {"r1": 5},
    )

    append(store, entry(event("m0", "succeeded", attempt=2)), entry(event("m1", "dead", attempt=2, failure=refused)))
    append(store, entry(event("m2", "cancelled", attempt=2)), entry(event("m3", "retried", attempt=2, failure=refused)))
    counter.count_all()
    (cause,) = Counts(store).causes()
    assert Counts(store).retrying() == {"mail": 2}
    assert (cause.retrying, cause.retried, cause.dead) == (2, 6, 1)

    other = FailureText("ValueError", "other", "", "f2")
    append(store, entry(event("m3", "retried", attempt=3, failure=other)), entry(event("m4", "succeeded", attempt=2)))
    counter.count_all()
    assert {one.fingerprint: one.retrying for one in Counts(store).causes()} == {"f1": 0, "f2": 1}


def test_a_secret_in_an_error_is_not_kept(store: Store) -> None:
    """Nor more than a line of it."""
    said = FailureText("OperationalError", "cannot reach postgresql://me:hunter2@db/x " + "y" * 1000, "", "f1")
    append(store, entry(event(kind="retried", failure=said)))
    EventCounter(store).count_all()
    (cause,) = Counts(store).causes()
    assert "hunter2" not in cause.message
    assert len(cause.message) <= 300


def test_when_the_first_attempt_of_a_release_ended(store: Store) -> None:
    """The first stays."""
    counter = EventCounter(store)
    append(store, entry(event(release="a"), at=AT), entry(event("m2", release="b"), at=AT + 5))
    counter.count_all()
    append(store, entry(event("m3", release="a"), at=AT + 9))
    counter.count_all()
    assert Counts(store).releases() == {"a": AT / 1000, "b": (AT + 5) / 1000}


def test_too_many_names_become_one_series(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can send messages may name any task."""
    monkeypatch.setattr(event_counter, "AT_ONCE", 2000)
    append(store, *(entry(event(f"m{n}", task=f"T{n}")) for n in range(5003)))
    EventCounter(store).count_all()
    found = Counts(store).totals()
    assert len(found) == 5001
    assert found[Series("", "")]["succeeded"] == 3


def test_a_journal_that_begins_anew_is_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody deleted it, and the clock of the server was set back: its ids are lower than what was counted."""
    redis: Any = store.redis
    redis.xadd(store.key("journal"), entry(event()), id="99999999999999-0")
    EventCounter(store).count_all()
    redis.delete(store.key("journal"))
    append(store, entry(event("m2")))
    assert EventCounter(store).count_all() == 1
    assert totals(store) == {("Send", "mail", "succeeded"): 2}


def test_a_journal_that_begins_anew_is_counted_at_once(store: Store) -> None:
    """By the counter that has counted the one before, however it comes to its entries; and what others have counted of it is counted once."""
    redis: Any = store.redis
    by_journal, by_read, by_id, other = (
        EventCounter(store),
        EventCounter(store),
        EventCounter(store),
        EventCounter(store),
    )
    redis.xadd(store.key("journal"), entry(event()), id="99999999999999-0")
    for one in (by_journal, by_read, by_id, other):
        one.count_all()
    redis.delete(store.key("journal"))
    append(store, entry(event("m2")), entry(event("m3")))
    found: Any = redis.xrange(store.key("journal"))
    by_read.count(dict(found))
    assert totals(store) == {("Send", "mail", "succeeded"): 3}
    by_read.count(dict(found))
    other.count(dict(found))
    append(store, entry(event("m4")))
    assert by_journal.count_all() >= 1
    assert totals(store) == {("Send", "mail", "succeeded"): 4}
    redis.delete(store.key("journal"))
    redis.xadd(store.key("journal"), entry(event("m5")), id="1-0")
    by_id.count_up_to(b"1-0")
    assert totals(store) == {("Send", "mail", "succeeded"): 5}


def test_a_journal_of_the_same_millisecond_ends_the_count(store: Store) -> None:
    """Nobody can tell whether it is another one: it is not counted, and nothing goes round for ever."""
    redis: Any = store.redis
    counter = EventCounter(store)
    redis.xadd(store.key("journal"), entry(event()), id="5-7")
    assert counter.count_all() == 1
    redis.delete(store.key("journal"))
    redis.xadd(store.key("journal"), entry(event("m2")), id="5-3")
    assert counter.count_all() == 0


def test_a_journal_whose_last_entries_are_gone_is_not_counted_twice(store: Store) -> None:
    """It is the same journal."""
    append(store, entry(event()), entry(event("m2")))
    EventCounter(store).count_all()
    redis: Any = store.redis
    redis.xdel(store.key("journal"), redis.xrevrange(store.key("journal"), count=1)[0][0])
    assert EventCounter(store).count_all() == 0
    assert totals(store) == {("Send", "mail", "succeeded"): 2}


def test_a_count_that_fails_is_made_once_more(store: Store) -> None:
    """Also of events without a claim: a server that takes no writes answers reads."""
    counter, redis = EventCounter(store), store.redis
    Journal(store).append([event(f"m{n}", "purged") for n in range(5)])
    redis.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(RedisError):
            counter.count_all()
    finally:
        redis.config_set("min-replicas-to-write", 0)
    counter.count_all()
    assert Counts(store).totals()[SEND]["purged"] == 5


@pytest.mark.parametrize("odd", ["x", "", "1-x"])
def test_a_mark_that_another_program_wrote_holds_up_nothing(store: Store, new_sqlite: Database, odd: str) -> None:
    """Recording waits for the count; so that goes on, from the beginning of what is in the journal."""
    append(store, entry(event()))
    store.redis.set(store.key("counts", "last"), odd)
    assert drain(recorder(store, new_sqlite)) == [1]
    store.redis.delete(store.key("counts", "last"))
    store.redis.lpush(store.key("counts", "last"), odd)
    append(store, entry(event("m2")))
    assert drain(recorder(store, new_sqlite)) == [1]
    assert totals(store) == {("Send", "mail", "succeeded"): 2}


def test_many_causes_push_out_none_that_is_retried(store: Store) -> None:
    """The largest outage may not be the latest."""
    counter, big = EventCounter(store), FailureText("ConnectionRefusedError", "refused", "", "big")
    append(store, *(entry(event(f"m{n}", "retried", failure=big), at=AT) for n in range(50)))
    other = (FailureText("ValueError", "no", "", f"f{n}") for n in range(1100))
    append(store, *(entry(event(f"d{n}", "dead", failure=one), at=AT + 1) for n, one in enumerate(other)))
    counter.count_all()
    found = Counts(store).causes(2000)
    assert len(found) == 1000
    assert (found[0].fingerprint, found[0].retrying) == ("big", 50)
    append(store, *(entry(event(f"m{n}", "succeeded", attempt=2)) for n in range(50)))
    counter.count_all()
    assert {one.retrying for one in Counts(store).causes(2000)} == {0}
    assert Counts(store).retrying() == {}


def test_too_many_errors_are_others(store: Store) -> None:
    """Whoever writes a task may name any class; the tasks that come later are counted all the same."""
    errors = (FailureText(f"E{n}", "no", "", "f") for n in range(5100))
    append(store, *(entry(event(f"m{n}", "dead", failure=one)) for n, one in enumerate(errors)))
    append(store, entry(event("other", task="Later")))
    EventCounter(store).count_all()
    found = Counts(store).totals()
    names = dict(errors_in(found[SEND]))
    assert (len(names), names["others"], sum(names.values())) == (5001, 100, 5100)
    assert found[Series("Later", "mail")]["succeeded"] == 1


def test_the_latest_releases_are_kept(store: Store) -> None:
    """Two hundred of them."""
    append(store, *(entry(event(f"m{n}", release=f"r{n}"), at=AT + n) for n in range(250)))
    EventCounter(store).count_all()
    assert {*Counts(store).releases()} == {f"r{n}" for n in range(50, 250)}


def test_what_is_kept_for_sql_is_bounded_in_bytes(store: Store, new_sqlite: Database) -> None:
    """What has no room is parsed once more."""
    counter = EventCounter(store, keeps=2000)
    append(store, *(entry(event(f"m{n}")) for n in range(30)))
    counter.count_all()
    assert 0 < len(counter._read) < 15
    assert drain(recorder(store, new_sqlite, counter=counter)) == [30]
    assert (counter._read, counter._room) == ({}, 2000)
