"""The recorder: every event once, in SQL, whatever the order and however often it is read (protocol 15)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import logging
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError  # noqa: A004  # redis-py's
from sqlalchemy import text

from conventions.core.lease_timings import USUAL
from conventions.dead_letters import letters as dead_letters
from conventions.recording import recorder as module
from conventions.recording.new_entries import AT_ONCE, GROUP
from conventions.records import journal_position
from conventions.records.journal import Event, Journal
from conventions.storage.database import Database
from conventions.storage.redis_store import Store, run_of
from conventions.storage.tables import DeadLetterRow, ExecutionRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.recorded import append, clear, contents, drain, entry, event, left, recorder, rejected
from tests.support import wait_until

AT = 1_700_000_000_000


def test_an_event_becomes_an_execution(store: Store, database: Database) -> None:
    """With everything that it says, and the time and fence of the settle."""
    one = event(
        kind="retried",
        key="k",
        generation=2,
        attempt=3,
        worker="w1@host",
        enqueued_at="2026-01-05T12:00:00+09:00",
        started_at="2026-01-05T03:00:01+00:00",
        runtime=1.5,
        wait=0.25,
        release="abc123",
    )
    append(store, entry(one, fence=2**62, at=AT + 1))
    assert drain(recorder(store, database)) == [1]
    assert contents(database, ExecutionRow) == [
        {
            "id": one.id, "message_id": "m1", "generation": 2, "attempt": 3, "kind": "retried", "task": "Send",
            "queue": "mail", "actor": "u-42", "key": "k", "worker": "w1@host",
            "enqueued_at": datetime(2026, 1, 5, 3, tzinfo=UTC), "started_at": datetime(2026, 1, 5, 3, 0, 1, tzinfo=UTC),
            "ended_at": datetime(2023, 11, 14, 22, 13, 20, 1000, tzinfo=UTC), "runtime": 1.5, "error": "ValueError",
            "error_message": "no", "traceback": "Traceback\nValueError: no\n", "fence": 2**62, "wait": 0.25,
            "release": "abc123", "fingerprint": "f" * 16, "number": None, "code": None, "erased": None,
        }
    ]  # fmt: skip
    assert contents(database, DeadLetterRow) == []
    assert left(store) == (0, 0)


def test_where_nothing_can_be_compared_the_mark_is_written(store: Store, database: Database) -> None:
    """As with messages on another server: else each transaction would ask for it again."""
    compared: list[int] = []
    one = recorder(store, database)
    one.compare = lambda: compared.append(1)
    append(store, entry(event()))
    drain(one)
    store.redis.delete(store.key("recorded"))
    for number in range(2, 5):
        append(store, entry(event(f"m{number}")))
        drain(one)
    assert compared == [1]
    mark = journal_position.read(store)
    assert mark is not None
    assert (mark.number, mark.run) == (4, run_of(store))


def test_what_sql_records_first_of_all_makes_no_redis_an_older_one(store: Store, database: Database) -> None:
    """It would compare messages, and end one whose job is recorded and whose callbacks are still to be sent."""
    compared: list[int] = []
    one = recorder(store, database)
    one.compare = lambda: bool(compared.append(1))  # type: ignore[func-returns-value]  # another process compares
    append(store, entry(event()))
    drain(one)
    append(store, entry(event("m2")))
    drain(one)
    assert compared == []
    store.redis.delete(store.key("recorded"))
    append(store, entry(event("m3")))
    drain(one)
    assert compared == [1]
    for number, garbage in enumerate((b"\xff\0x", b"5", b"5 9999999999999999999 r"), 4):
        store.redis.set(store.key("recorded"), garbage)
        append(store, entry(event(f"m{number}")))
        assert drain(one) == [1]


def test_a_dead_event_becomes_a_letter_with_its_message(store: Store, database: Database) -> None:
    """The settle script hands over the message as it was stored."""
    stored = '{"body": "W10=",  "headers": {"id": "m1"}}'
    append(store, entry(event(kind="dead"), fence=7, message=stored), entry(event("m2")))
    drain(recorder(store, database))
    (letter,) = contents(database, DeadLetterRow)
    assert (letter["id"], letter["state"], letter["attempts"], letter["fence"]) == ("m1", "dead", 1, 7)
    assert (letter["arguments"], letter["headers"], letter["message"]) == ({"user_id": 7}, {"x_key": "k"}, stored)
    assert (letter["error"], letter["fingerprint"]) == ("ValueError", "f" * 16)
    assert letter["first_failed_at"] == letter["last_failed_at"] == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_the_event_of_a_refused_settle_is_no_dead_letter(store: Store, database: Database) -> None:
    """Another worker holds the claim: its outcome counts."""
    append(store, entry(event(kind="dead"), refused="1"))
    drain(recorder(store, database))
    assert [row["kind"] for row in contents(database, ExecutionRow)] == ["superseded"]
    assert contents(database, DeadLetterRow) == []


def test_events_without_a_claim_are_recorded(store: Store, database: Database) -> None:
    """As of a message whose body is no JSON: no task, no attempt, no failure text even."""
    Journal(store).append([event("m1", "expired"), Event("m2", "dead"), event("m3", "dead", headers=None)])
    drain(recorder(store, database))
    assert [row["id"] for row in contents(database, DeadLetterRow)] == ["m2", "m3"]
    assert {row["kind"] for row in contents(database, ExecutionRow)} == {"expired", "dead"}


def test_many_events_go_in_bounded_batches(store: Store, database: Database) -> None:
    """Five thousand, with a letter for each hundredth: none lost, nothing left over."""
    for start in range(0, 5000, 1000):
        append(
            store,
            *(entry(event(f"m{n}", "dead" if n % 100 == 0 else "succeeded")) for n in range(start, start + 1000)),
        )
    assert drain(recorder(store, database)) == [500] * 10
    assert len(contents(database, ExecutionRow)) == 5000
    assert len(contents(database, DeadLetterRow)) == 50
    assert left(store) == (0, 0)


def test_an_event_that_is_read_twice_counts_once(store: Store, database: Database) -> None:
    """Within one batch, and in another one after the letter was redriven; the first time stays."""
    append(store, *(entry(event(kind="dead"), at=AT + n) for n in range(2)))
    drain(recorder(store, database))
    before = contents(database, ExecutionRow), contents(database, DeadLetterRow)
    assert before[0][0]["ended_at"] == before[1][0]["last_failed_at"] == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    with database.session() as session:
        assert dead_letters.move(session, "m1", ("dead",), "redriven")
    append(store, entry(event(kind="dead"), at=AT + 5, message="{}"))
    drain(recorder(store, database))
    assert contents(database, ExecutionRow) == before[0]
    assert contents(database, DeadLetterRow) == [before[1][0] | {"state": "redriven"}]


def test_a_redriven_letter_that_dies_again_is_dead_again(store: Store, database: Database) -> None:
    """One letter, with its first time and the history of both lives."""
    append(store, entry(event(kind="retried"), at=AT), entry(event(kind="dead", attempt=2), at=AT + 1000))
    drain(recorder(store, database))
    with database.session() as session:
        assert dead_letters.move(session, "m1", ("dead",), "redriven")
    append(store, entry(event(kind="dead", generation=1), fence=9, at=AT + 2000))
    drain(recorder(store, database))
    (letter,) = contents(database, DeadLetterRow)
    assert (letter["state"], letter["generation"], letter["attempts"]) == ("dead", 1, 1)
    assert (letter["last_failed_at"] - letter["first_failed_at"]).total_seconds() == 2, "from its first failed attempt"
    with database.session() as session:
        history = dead_letters.history(session, "m1")
    assert [(one["attempt"], one["kind"]) for one in history] == [(1, "retried"), (2, "dead"), (1, "dead")]


def test_a_failure_that_is_read_after_the_end_of_its_message_is_its_first(store: Store, database: Database) -> None:
    """Another recorder had read it, and was killed."""
    append(store, entry(event(kind="dead", attempt=2), at=AT + 1000))
    drain(recorder(store, database))
    append(store, entry(event(kind="retried"), at=AT), entry(event("m2", kind="retried"), at=AT))
    drain(recorder(store, database))
    (letter,) = contents(database, DeadLetterRow)
    assert (letter["last_failed_at"] - letter["first_failed_at"]).total_seconds() == 1


lives = st.lists(
    st.tuples(
        st.integers(0, 2),  # generation
        st.integers(0, 3),  # attempt
        st.sampled_from(["dead", "dead", "retried", "succeeded", "superseded"]),
        st.sampled_from(["t", "u"]),  # token
        st.integers(0, 3),  # fence
        st.booleans(),  # refused
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda one: (one[0], one[1], "superseded" if one[5] else one[2], one[3]),  # what makes an event
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(data=st.data(), life=lives, limit=st.integers(1, 4))
def test_any_order_and_repetition_gives_the_same_rows(
    store: Store, database: Database, data: st.DataObject, life: list[Any], limit: int
) -> None:
    """A message's events may be read late, again, or in batches that are cut anywhere."""
    entries = [
        entry(
            event(kind=kind, generation=generation, attempt=attempt, token=token, arguments={"n": number}),
            fence=fence,
            at=AT + number,
            **({"refused": "1"} if refused else {}),
        )
        for number, (generation, attempt, kind, token, fence, refused) in enumerate(life)
    ]
    found = []
    mixed = data.draw(st.permutations(entries + data.draw(st.lists(st.sampled_from(entries), max_size=4))))
    for order, size in ((entries, 500), (mixed, limit)):
        clear(database)
        append(store, *order)
        drain(recorder(store, database), size)
        found.append((contents(database, ExecutionRow), contents(database, DeadLetterRow)))
        assert left(store) == (0, 0)
    assert found[0] == found[1]


def test_what_a_dead_recorder_has_read_is_taken_over(store: Store, database: Database) -> None:
    """After a minute without a sign of life; not before, since it may be at work."""
    append(store, *(entry(event(f"m{n}")) for n in range(3)))
    redis: Any = store.redis
    assert drain(recorder(store, database), 1) == [1] * 3  # makes the group
    append(store, *(entry(event(f"n{n}")) for n in range(3)))
    redis.xreadgroup(GROUP, "gone:1", {store.key("journal"): ">"}, count=2)
    assert drain(recorder(store, database)) == [1]
    assert left(store) == (2, 2)
    taking_over = recorder(store, database, timings=replace(USUAL, abandoned_after=0.05))
    assert wait_until(lambda: drain(taking_over)) == [2]
    assert len(contents(database, ExecutionRow)) == 6
    assert left(store) == (0, 0)


def test_a_large_batch_is_read_in_parts_none_of_which_is_lost(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server serves others in between; where it is away for the second part, the first one comes again."""
    append(store, entry(event()))
    mine = recorder(store, database)
    assert drain(mine) == [1]  # makes the group
    clear(database)
    append(store, *(entry(event(f"n{number}")) for number in range(2 * AT_ONCE + 3)))
    read, calls = store.redis.xreadgroup, iter([True, False])

    def away_the_second_time(*args: Any, **options: Any) -> Any:
        if not next(calls):
            raise ConnectionError("away")
        return read(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(store.redis, "xreadgroup", away_the_second_time)
        with pytest.raises(ConnectionError):
            mine.drain_once(5000)
    assert drain(mine, 5000) == [AT_ONCE, AT_ONCE + 3]
    assert len(contents(database, ExecutionRow)) == 2 * AT_ONCE + 3
    assert left(store) == (0, 0)


def test_an_entry_that_somebody_deleted_holds_nothing_up(store: Store, database: Database) -> None:
    """It was read, and is not there any more."""
    append(store, entry(event("m1")))
    drain(recorder(store, database))
    append(store, entry(event("m2")), entry(event("m3")))
    redis: Any = store.redis
    mine = recorder(store, database)
    ((_, found),) = redis.xreadgroup(GROUP, mine.name, {store.key("journal"): ">"})
    redis.xdel(store.key("journal"), found[0][0])
    drain(mine)
    assert {row["message_id"] for row in contents(database, ExecutionRow)} == {"m1", "m3"}
    assert left(store) == (0, 0)


def test_consumers_that_are_gone_are_forgotten(store: Store, database: Database) -> None:
    """Each start of a worker makes a new one; one that holds entries stays."""
    append(store, entry(event("m1")))
    drain(recorder(store, database))
    redis: Any = store.redis
    redis.xgroup_createconsumer(store.key("journal"), GROUP, "gone:1")
    append(store, entry(event("m2")))
    redis.xreadgroup(GROUP, "holds:1", {store.key("journal"): ">"})

    def forget(milliseconds: int) -> set[bytes]:
        store.script("forget_recorders")([store.key("journal")], [GROUP, milliseconds])
        return {one["name"] for one in redis.xinfo_consumers(store.key("journal"), GROUP)}

    assert b"gone:1" in forget(3_600_000)
    assert wait_until(lambda: forget(1) == {b"holds:1"})


def test_a_journal_that_was_flushed_is_recorded_again(store: Store, database: Database) -> None:
    """The group went with it."""
    mine = recorder(store, database)
    assert drain(mine) == []
    store.redis.delete(store.key("journal"))
    append(store, entry(event()))
    assert drain(mine) == [1]


def test_a_missing_table_is_an_outage(store: Store, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """`db upgrade` did not run yet: one warning, nothing put aside, and all of it is recorded afterwards."""
    caplog.set_level(logging.WARNING)
    rename = "ALTER TABLE {} RENAME TO {}"
    with database.session() as session:
        session.execute(text(rename.format("conventions_dead_letters", "away")))
    append(store, *(entry(event(f"m{n}", "dead")) for n in range(3)))
    mine = recorder(store, database)
    turns = iter(range(100))
    mine.run(lambda: next(turns) > 12)
    # psycopg sometimes says that the failed statement's pipeline could not be ended in good order
    others = [record for record in caplog.records if record.name != "psycopg"]
    assert [record.levelname for record in others] == ["WARNING"]
    assert "3 events wait" in caplog.text
    assert "Traceback" not in caplog.text
    assert contents(database, ExecutionRow) == [], "nothing of a transaction that failed"
    assert left(store) == (3, 3)
    with database.session() as session:
        session.execute(text(rename.format("away", "conventions_dead_letters")))
    mine.run(lambda: left(store) == (0, 0))
    assert len(contents(database, DeadLetterRow)) == 3
    assert rejected(store) == []
    assert "recorded again" in caplog.text


def test_it_rests_less_the_longer_events_wait(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would never come to the end of what jobs bring that do not pause."""
    rests: list[float] = []
    waits = iter([0.0, 2.5, 5.0, 60.0])
    clock = [0.0]

    def take(_: Any) -> int:
        clock[0] += 0.1
        return int(module.BATCH * 2 ** len(rests))

    one = recorder(store, database, rest=4.0)
    monkeypatch.setattr(module, "rest", lambda seconds, _: rests.append(seconds))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(one, "_take", take)
    monkeypatch.setattr(one.journal, "age", lambda: next(waits))
    one.run(lambda: len(rests) == 4)
    assert rests == pytest.approx([0.4, 0.2, 0.0, 0.0])
