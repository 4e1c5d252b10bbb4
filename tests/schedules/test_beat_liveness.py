"""Which beats run, and how long ago each of them looked at the schedule (R10)."""

import pytest

from conventions.app import ConventionsApp
from conventions.schedules.beat_liveness import FORGET_AFTER, SILENT_AFTER, Beats, beats_fault
from conventions.storage.redis_store import Store
from tests.beat_fixtures import DAILY, Beat

WAITING = "no beat leads now: the lock of the last one has not lapsed, or those that run have no schedule"


def set_back(store: Store, name: str, seconds: float) -> None:
    """As if a beat had looked last so many seconds ago."""
    raw = store.redis.hget(store.key("beats"), name)
    assert isinstance(raw, bytes)
    leads, tick, since = raw.split(b":")
    store.redis.hset(store.key("beats"), name, b":".join([leads, b"%d" % (int(tick) - int(seconds * 1000)), since]))


def test_a_beat_is_seen_while_it_ticks(store: Store) -> None:
    """The one that leads comes first; one that has not looked for long is silent, whatever it did last."""
    beats = Beats(store)
    assert beats_fault(beats.listing()) == "no beat runs, so nothing is sent: start one with `celery beat`"
    beats.tick("b:2", leads=False)
    assert beats_fault(beats.listing()) == WAITING
    beats.tick("a:1", leads=True)
    first, second = beats.listing()
    assert [(one.name, one.state) for one in (first, second)] == [("a:1", "leads"), ("b:2", "stands by")]
    assert 0 <= first.tick_age < 5
    assert beats_fault([first, second]) is None
    set_back(store, "a:1", SILENT_AFTER + 40)
    second, first = beats.listing()
    assert (first.name, first.state) == ("a:1", "silent")
    assert first.tick_age == pytest.approx(SILENT_AFTER + 40, abs=5)
    assert beats_fault([second, first]) == WAITING
    beats.leave("b:2")
    told = beats_fault(beats.listing())
    assert told is not None
    assert "nothing is sent: a:1 is stuck or gone for 5" in told
    beats.tick("a:1", leads=True)
    (again,) = beats.listing()
    assert again.state == "leads"
    assert again.since <= first.since


def test_who_is_silent_for_long_is_forgotten_once_another_ticks(store: Store) -> None:
    """Until then it stays: it says since when nobody looks."""
    beats = Beats(store)
    beats.tick("a:1", leads=True)
    set_back(store, "a:1", FORGET_AFTER.total_seconds() + 10)
    assert [one.name for one in beats.listing()] == ["a:1"]
    beats.tick("b:2", leads=True)
    assert [one.name for one in beats.listing()] == ["b:2"]
    assert 0 < store.redis.ttl(store.key("beats")) <= 31 * 86400


def test_leader_and_standby_say_so(beat: Beat, app: ConventionsApp) -> None:
    """With each look; one that ends in order takes its name away."""
    first, second = beat(DAILY), beat(DAILY)
    second.name = "another:1"  # one process runs both
    first.tick()
    second.tick()
    found = Beats(app.store).listing()
    assert [(one.name, one.state) for one in found] == [(first.name, "leads"), ("another:1", "stands by")]
    first.close()
    assert [one.name for one in Beats(app.store).listing()] == ["another:1"]
