"""The state of schedules in a real Redis."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from redbeat.schedulers import RedBeatSchedulerEntry

from conventions.core.errors import BrokerUnavailable
from conventions.core.json_fields import to_json
from conventions.pauses.pause import Pause
from conventions.records.audit_entry import AuditEntry
from conventions.schedules.catch_up import Passed
from conventions.schedules.schedule_state import Begun, Lead, LeadLost, Run, meta_of
from conventions.schedules.schedule_store import BACK_WITHIN, HISTORY, KEEP_HISTORY, Schedules
from conventions.storage.redis_store import Store
from tests.support import wait_until

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
    assert not schedules.advance("a", SLOT, None, a_run(SLOT + DAY))
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


AUDIT_ENTRY = AuditEntry("u-42", "schedule pause", "a", "why")


def a_pause(since: datetime = SLOT, until: datetime | None = None) -> Pause:
    """A pause with a reason."""
    return Pause("the printer is broken: 故障", "u-42", since, until)


def audited(store: Store) -> list[str]:
    """The actions of the journal's audit entries."""
    entries: Any = store.redis.xrange(store.key("journal"))
    return [json.loads(fields[b"deed"])["action"] for _, fields in entries]


def test_a_pause_ends_without_the_slots_it_held_back(store: Store) -> None:
    """Resuming moves the cursor, remembers what was held back, writes an audit entry, and tells whether there was a pause."""
    schedules = Schedules(store)
    schedules.enter("a", {"name": "a"}, SLOT, SLOT + DAY)
    schedules.pause("a", a_pause(until=SLOT + DAY), AUDIT_ENTRY)
    assert schedules.read(["a"])[1]["a"].pause == a_pause(until=SLOT + DAY)
    held_back = Run.without_message("paused", Passed(SLOT + DAY, SLOT + 2 * DAY, 2), SLOT + 3 * DAY, "u-42", "why")
    entry = replace(AUDIT_ENTRY, action="schedule resume")
    assert schedules.resume("a", SLOT + 3 * DAY, SLOT + 4 * DAY, entry, held_back=held_back)
    state = schedules.read(["a"])[1]["a"]
    assert (state.pause, state.cursor) == (None, SLOT + 3 * DAY)
    assert schedules.history("a", 10) == [held_back]
    assert not schedules.resume("a", SLOT + 5 * DAY, None, entry)
    assert audited(store) == ["schedule pause", "schedule resume"]


def test_only_the_pause_that_is_meant_is_lifted(store: Store) -> None:
    """A beat that finds a pause over does not lift one that somebody has set meanwhile."""
    schedules = Schedules(store)
    schedules.pause("a", a_pause(SLOT + DAY), AUDIT_ENTRY)
    assert not schedules.resume("a", SLOT + DAY, None, AUDIT_ENTRY, only=a_pause(SLOT))
    assert schedules.resume("a", SLOT + DAY, None, AUDIT_ENTRY, only=a_pause(SLOT + DAY))


def test_a_schedule_that_is_gone_leaves_its_pause_its_history_and_for_a_moment_its_cursor(store: Store) -> None:
    """When it comes back soon, it goes on where it was, still paused, with its history."""
    schedules = Schedules(store)
    schedules.enter("a", {"name": "a"}, SLOT, SLOT + DAY)
    schedules.advance("a", SLOT + DAY, SLOT + 2 * DAY, a_run(SLOT + DAY))
    schedules.pause("a", a_pause(), AUDIT_ENTRY)
    assert schedules.names() == {"a"}
    schedules.forget("a")
    assert schedules.names() == set()
    assert store.redis.zcard(f"{schedules.prefix}:schedule") == 0
    state = schedules.read(["a"], definitions=True)[1]["a"]
    assert (state.gone, state.cursor) == (True, SLOT + DAY)
    assert state.pause is not None
    entry, history = schedules.key("a"), store.key("schedule", "history", "a")
    assert store.redis.ttl(entry) == BACK_WITHIN.total_seconds()
    assert store.redis.ttl(history) == KEEP_HISTORY.total_seconds()
    schedules.enter("a", {"name": "a"}, SLOT + 5 * DAY, SLOT + 6 * DAY)
    assert store.redis.ttl(entry) == store.redis.ttl(history) == -1
    state = schedules.read(["a"], definitions=True)[1]["a"]
    assert (state.gone, state.cursor) == (False, SLOT + DAY)
    assert schedules.history("a", 10) == [a_run(SLOT + DAY)]


# Whether a slot is to be sent.

LOCK, TOKEN = "{test}:lock", "t-1"
LEAD = Lead(LOCK, TOKEN, 30)


@pytest.fixture
def schedules(store: Store) -> Schedules:
    """The schedules of somebody who leads."""
    store.redis.set(LOCK, TOKEN)
    return Schedules(store)


def begin(schedules: Schedules, slot: datetime | None = SLOT, id: str = "m-1", **options: Any) -> Begun:  # noqa: A002
    """Ask for one slot, on one server."""
    given: dict[str, Any] = {"overlap": "allow", "here": True, "slot": slot, "lead": LEAD if slot else None}
    return schedules.begin("a", id, DAY, **given | options)


def test_a_slot_begins_once_and_keeps_its_first_time(schedules: Schedules, store: Store) -> None:
    """Whoever begins it again is told when that was first, until the cursor has passed it."""
    first = begin(schedules)
    since = first.since
    assert since is not None
    wait_until(lambda: schedules.now() > since + timedelta(milliseconds=2), 5, "another moment")
    assert begin(schedules) == first
    other = begin(schedules, SLOT + DAY, "m-2")
    assert other.since is not None
    assert other.since > since
    schedules.advance("a", SLOT + DAY, None, a_run())
    assert begin(schedules) == begin(schedules, SLOT + DAY) == Begun()
    assert store.redis.ttl(LOCK) > 25  # who sends keeps the lead


def test_only_who_leads_begins(schedules: Schedules, store: Store) -> None:
    """A beat whose lock is another's is told so, and nothing is changed then; a free one it takes back."""
    store.redis.set(LOCK, "another")
    with pytest.raises(LeadLost):
        begin(schedules)
    with pytest.raises(LeadLost):
        schedules.enter("a", {"name": "a"}, SLOT, None, lead=LEAD)
    with pytest.raises(LeadLost):
        schedules.forget("a", lead=LEAD)
    assert not store.redis.exists(schedules.key("a"))
    store.redis.delete(LOCK)  # it has lapsed, and nobody has taken it
    assert begin(schedules).since is not None
    assert store.redis.get(LOCK) == TOKEN.encode()
    schedules.enter("a", {"name": "a"}, SLOT, None, lead=LEAD)
    assert schedules.names() == {"a"}
    assert begin(schedules, None).since is not None  # by hand


def test_a_paused_schedule_begins_nothing_but_runs_by_hand(schedules: Schedules) -> None:
    """Also when the beat has read its state before the pause."""
    schedules.pause("a", a_pause(), AUDIT_ENTRY)
    assert begin(schedules) == Begun()
    assert begin(schedules, None).since is not None


@pytest.mark.parametrize("here", [True, False])
def test_a_run_that_has_not_ended_keeps_the_next_from_beginning(here: bool, schedules: Schedules, store: Store) -> None:
    """It has ended when its message is gone, or where that is elsewhere, when its outcome was settled."""

    def lives(id_: str, overlap: str = "skip") -> None:
        with schedules.sending(id_, overlap=overlap, here=here):
            if here:  # as the broker's own script leaves it
                store.redis.hset(store.key("message", id_), "queue", "q")

    def ends(id_: str) -> None:
        store.redis.delete(store.key("message" if here else "live", id_))

    alone: Any = {"overlap": "skip", "here": here}
    assert begin(schedules, **alone).since is not None
    assert begin(schedules, None, "m-3", **alone) == Begun(live_id="m-1")  # also before its message is there
    lives("m-1")
    assert begin(schedules, **alone).since is not None  # itself, once more
    lives("m-1")
    assert (
        begin(schedules, SLOT + DAY, "m-2", **alone) == begin(schedules, None, "m-3", **alone) == Begun(live_id="m-1")
    )
    assert begin(schedules, None, "m-4", overlap="beside", here=here).since is not None
    lives("m-4", "beside")
    ends("m-1")
    assert begin(schedules, SLOT + DAY, "m-2", **alone) == Begun(live_id="m-4")
    ends("m-4")
    assert begin(schedules, SLOT + DAY, "m-2", **alone).since is not None


def test_a_run_that_may_still_arrive_is_waited_for_a_minute(schedules: Schedules, store: Store) -> None:
    """A broker elsewhere that stood still takes it when it goes on."""
    alone: Any = {"overlap": "skip", "here": False}
    begin(schedules, **alone)
    with pytest.raises(BrokerUnavailable), schedules.sending("m-1", overlap="skip", here=False):
        raise BrokerUnavailable("no answer")
    assert begin(schedules, SLOT + DAY, "m-2", **alone) == Begun(live_id="m-1")
    assert 0 < store.redis.pttl(store.key("live", "m-1")) <= 60_000


def test_a_batch_runs_until_it_has_ended(schedules: Schedules, store: Store) -> None:
    """Its message ends when it is cut; its chunks go on."""
    alone: Any = {"overlap": "skip"}
    assert begin(schedules, **alone).since is not None
    store.redis.delete(store.key("live", "m-1"))
    for state in ("splitting", "running"):
        store.redis.hset(store.key("batch", "m-1"), "state", state)
        assert begin(schedules, SLOT + DAY, "m-2", **alone) == Begun(live_id="m-1")
    store.redis.hset(store.key("batch", "m-1"), "state", "dead")
    assert begin(schedules, SLOT + DAY, "m-2", **alone).since is not None


def test_a_run_that_could_not_be_sent_is_not_waited_for(schedules: Schedules) -> None:
    """Where the broker is elsewhere nothing else would ever end it."""
    alone: Any = {"overlap": "skip", "here": False}
    assert begin(schedules, **alone).since is not None
    with pytest.raises(ConnectionError), schedules.sending("m-1", overlap="skip", here=False):
        raise ConnectionError
    assert begin(schedules, SLOT + DAY, "m-2", **alone).since is not None


def test_a_run_that_was_sent_though_nobody_heard_is_waited_for(schedules: Schedules, store: Store) -> None:
    """The answer was lost, not the message."""
    assert begin(schedules, overlap="skip").since is not None
    store.redis.hset(store.key("message", "m-1"), "queue", "q")
    with pytest.raises(BrokerUnavailable), schedules.sending("m-1", overlap="skip", here=True):
        raise BrokerUnavailable("no answer")
    assert begin(schedules, SLOT + DAY, "m-2", overlap="skip") == Begun(live_id="m-1")
    store.redis.delete(store.key("message", "m-1"))
    assert begin(schedules, SLOT + DAY, "m-2", overlap="skip").since is not None


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


def test_what_was_not_sent_is_not_the_last_run(store: Store) -> None:
    """The last message that was sent is remembered beside the history, which has the slots that were not sent, too."""
    schedules = Schedules(store)
    schedules.advance("a", SLOT, None, a_run())
    skipped = Run(SLOT + DAY, SLOT + DAY, "", "beat", "skipped", note="m-1")
    schedules.note_fault("a", "ValueError: no")
    assert schedules.read(["a"])[1]["a"].fault == "ValueError: no"
    schedules.advance("a", SLOT + DAY, None, skipped)
    state = schedules.read(["a"])[1]["a"]
    assert (state.last_run, state.fault) == (a_run(), None)
    assert schedules.histories(["a", "b"], 10) == {"a": [skipped, a_run()], "b": []}


def test_a_line_of_an_older_version_is_read(store: Store) -> None:
    """It had fewer fields."""
    store.redis.lpush(
        store.key("schedule", "history", "a"),
        '{"planned_at": "2026-01-01T00:00:00+00:00", "sent_at": "2026-01-01T00:00:02+00:00", "id": "m-1", "actor": "beat"}',
    )
    assert Schedules(store).history("a", 1) == [a_run()]


def test_slots_that_are_skipped_for_one_run_are_one_line(store: Store) -> None:
    """So a long run does not push all else out of the history."""
    schedules = Schedules(store)
    for number in range(3):
        slot = SLOT + number * DAY
        schedules.advance("a", slot, None, Run(slot, slot, "", "beat", "skipped", note="m-1"))
    schedules.advance("a", SLOT + 3 * DAY, None, Run(SLOT + 3 * DAY, SLOT, "", "beat", "skipped", note="m-2"))
    second, first = schedules.history("a", 9)
    assert first == Run(SLOT + 2 * DAY, SLOT + 2 * DAY, "", "beat", "skipped", 3, SLOT, "m-1")
    assert (second.count, second.first_at, second.note) == (1, None, "m-2")


def test_what_a_later_version_writes_is_read(store: Store) -> None:
    """Fields that are not known are passed over, as in a deploy that is undone."""
    line, pause = json.loads(to_json(a_run())), json.loads(to_json(a_pause()))
    store.redis.lpush(store.key("schedule", "history", "a"), json.dumps(line | {"mood": "good"}))
    store.redis.hset(store.key("schedule", "paused"), "a", json.dumps(pause | {"mood": "bad"}))
    schedules = Schedules(store)
    assert schedules.history("a", 1) == [a_run()]
    assert schedules.read(["a"])[1]["a"].pause == a_pause()


def test_a_schedule_that_no_beat_has_seen_gets_no_cursor_by_a_resume(store: Store) -> None:
    """Its slots count from the deploy that brings it."""
    schedules = Schedules(store)
    schedules.pause("a", a_pause(), AUDIT_ENTRY)
    assert schedules.resume("a", SLOT, None, AUDIT_ENTRY)
    assert schedules.read(["a"])[1]["a"].cursor is None


def test_a_run_from_before_the_rule_counts(schedules: Schedules, store: Store) -> None:
    """A schedule that may not overlap any more waits for the run that began when it might."""
    schedules.advance("a", SLOT, None, a_run())
    store.redis.hset(store.key("message", "m-1"), "queue", "q")
    assert begin(schedules, SLOT + DAY, "m-2", overlap="skip") == Begun(live_id="m-1")
    store.redis.delete(store.key("message", "m-1"))
    assert begin(schedules, SLOT + DAY, "m-2", overlap="skip").since is not None


def test_a_beat_that_slept_over_a_removal_does_not_bring_it_back(store: Store) -> None:
    """It ticks off what it has sent, and RedBeat's index stays as it is."""
    schedules = Schedules(store)
    schedules.enter("a", {"name": "a"}, SLOT, SLOT + DAY)
    schedules.forget("a")
    assert schedules.advance("a", SLOT + DAY, SLOT + 2 * DAY, a_run(SLOT + DAY))
    assert store.redis.zcard(f"{schedules.prefix}:schedule") == 0
    assert schedules.names() == set()
    store.redis.delete(LOCK)
    with pytest.raises(LeadLost):  # nobody leads now, but somebody did
        begin(schedules, SLOT + 3 * DAY)
    assert not store.redis.exists(LOCK)
