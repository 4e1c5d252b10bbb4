"""The state of schedules in a real Redis."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from redbeat.schedulers import RedBeatSchedulerEntry

from conventions.schedules import HISTORY, Run, Schedules, meta_of
from conventions.store import Store

SLOT = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def a_run(slot: datetime | None = SLOT, message_id: str = "m-1") -> Run:
    """A run sent two seconds after its slot."""
    return Run(slot, (slot or SLOT) + timedelta(seconds=2), message_id, "beat")


def test_the_cursor_never_goes_back(store: Store) -> None:
    """Of two beats that sent one slot, or slots in the wrong order, one moves the cursor; the other is told."""
    schedules = Schedules(store)
    assert schedules.advance("a", SLOT, SLOT + DAY, a_run())
    assert not schedules.advance("a", SLOT, SLOT + DAY, a_run())
    assert not schedules.advance("a", SLOT - DAY, SLOT, a_run())
    _, states = schedules.read(["a", "b"])
    assert states["a"].cursor == SLOT
    assert states["a"].last_run == a_run()
    assert (states["b"].cursor, states["b"].last_run) == (None, None)
    assert schedules.history("a", 10) == [a_run()]


def test_redbeat_can_read_what_is_written(store: Store) -> None:
    """The cursor is RedBeat's `last_run_at`, and its index holds the next slot."""
    schedules = Schedules(store)
    schedules.advance("a", SLOT, SLOT + DAY)
    meta = store.redis.hget(schedules.key("a"), "meta")
    assert meta == meta_of(SLOT).encode()
    assert RedBeatSchedulerEntry.decode_meta(meta) == {"last_run_at": SLOT}
    index = f"{schedules.prefix}:schedule"
    assert store.redis.zscore(index, schedules.key("a")) == (SLOT + DAY).timestamp()
    schedules.advance("a", SLOT + DAY, None)  # no further slot
    assert store.redis.zcard(index) == 0


def test_a_pause_ends_without_the_slots_it_held_back(store: Store) -> None:
    """Resuming moves the cursor to now, and tells whether there was a pause."""
    schedules = Schedules(store)
    schedules.advance("a", SLOT, SLOT + DAY)
    schedules.pause("a", "the printer is broken: 故障", "u-42")
    pause = schedules.read(["a"])[1]["a"].pause
    assert pause is not None
    assert (pause.reason, pause.actor) == ("the printer is broken: 故障", "u-42")
    assert abs(pause.since - datetime.now(UTC)) < timedelta(minutes=1)
    assert schedules.resume("a", None)
    now, states = schedules.read(["a"])
    assert states["a"].pause is None
    assert states["a"].cursor is not None
    assert now - states["a"].cursor < timedelta(seconds=5)
    assert not schedules.resume("a", None)


def test_a_forgotten_schedule_leaves_only_its_pause(store: Store) -> None:
    """A deploy that removes a schedule drops its state; when it comes back it is still paused."""
    schedules = Schedules(store)
    schedules.advance("a", SLOT, SLOT + DAY, a_run())
    schedules.pause("a", "why", "u-42")
    schedules.forget("a")
    state = schedules.read(["a"])[1]["a"]
    assert (state.cursor, state.last_run) == (None, None)
    assert state.pause is not None
    assert store.redis.keys(store.key("*")) == [store.key("schedule", "paused").encode()]


def test_the_history_is_bounded_and_newest_first(store: Store) -> None:
    """So many runs are kept, those sent by hand among them."""
    schedules = Schedules(store)
    for number in range(HISTORY + 5):
        schedules.advance("a", SLOT + timedelta(seconds=number), None, a_run(SLOT + timedelta(seconds=number)))
    schedules.record("a", a_run(None, "by-hand"))
    runs = schedules.history("a", HISTORY + 100)
    assert len(runs) == HISTORY
    assert (runs[0].id, runs[0].planned_at) == ("by-hand", None)
    assert all(newer.sent_at > older.sent_at for newer, older in pairwise(runs[1:]))
    assert len(schedules.history("a", 3)) == 3
