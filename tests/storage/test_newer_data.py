"""What a later release has written is left as it is, and named; what stands beside it goes on."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from conventions.app import ConventionsApp
from conventions.broker.batch_membership import Join, Member
from conventions.broker.delivery import ReadRequest
from conventions.broker.redis_broker import Broker
from conventions.execution.purge_queues import purge
from conventions.fast_lane.outcome_stream import OutcomeStream
from conventions.idempotency.claim_answers import Busy, Parked
from conventions.idempotency.claims import Claims, Settlement
from conventions.records.journal import Event
from conventions.schedules.beat_liveness import Beats
from conventions.storage.newer_data import left_alone
from conventions.storage.redis_store import Store
from tests.claiming import FIRST, asking, granted, held, message, places, sent, settle, take

SEPARATOR = "\x1f"
LATER_STRING = SEPARATOR.join(["v2", "q", "3", "payload"])


def snapshot(store: Store, key: str) -> Any:
    """A key as it is, whatever its type."""
    return store.redis.dump(key)


def names(store: Store) -> set[str]:
    """What is left alone."""
    return {one.name for one in left_alone(store)}


WRITES: dict[str, Callable[[Any, str], Any]] = {
    "a list": lambda redis, key: redis.rpush(key, "a", "b"),
    "a stream": lambda redis, key: redis.xadd(key, {"payload": "a"}),
    "a hash without a payload": lambda redis, key: redis.hset(key, "body2", "a"),
    "a hash of a later form": lambda redis, key: redis.hset(key, mapping={"payload": "a", "form": "2"}),
    "a string of a later form": lambda redis, key: redis.set(key, LATER_STRING),
}


@pytest.mark.parametrize("form", WRITES)
def test_a_message_in_a_later_form_stays_in_its_queue(broker: Broker, store: Store, form: str) -> None:
    """It waits for a worker that can read it, however it was found, and the one beside it is handed out."""
    key = store.key("message", "later")
    WRITES[form](store.redis, key)
    before = snapshot(store, key)
    store.redis.zadd(store.key("queue", "q"), {"later": 1})
    broker.publish([message("m1")])
    assert [one.tag for one in broker.reserve(["q"], 10)] == [b"m1"]
    assert places(store, "later") == ["delayed"]
    assert names(store) == {"message:later"}
    # It comes due, a worker of the later release that held it dies, and it is called off: still there.
    store.redis.zadd(store.key("delayed", "q"), {"later": 1})
    assert broker.reserve(["q"], 10) == []
    assert places(store, "later") == ["delayed"]
    store.redis.zadd(store.key("inflight", "q"), {"later": 1})
    store.redis.zrem(store.key("delayed", "q"), "later")
    store.redis.hset(store.key("receipts"), "later", "of-a-later-release")
    broker.sweep()
    assert places(store, "later") == ["queue"]
    broker.cancel("later", timedelta(minutes=1))
    assert broker.reserve(["q"], 10) == []
    assert snapshot(store, key) == before
    store.redis.delete(key)
    assert names(store) == set()


@pytest.mark.parametrize("form", WRITES)
def test_a_purge_leaves_a_later_form(app: ConventionsApp, form: str) -> None:
    """It removes what it can read, and ends."""
    store, broker = app.store, app.broker
    WRITES[form](store.redis, store.key("message", "later"))
    before = snapshot(store, store.key("message", "later"))
    broker.publish([message("m1")])
    for place in ("queue", "delayed"):
        store.redis.zadd(store.key(place, "q"), {"later": 1})
        assert purge(app, ["q"]) == {"q": 1 if place == "queue" else 0}
        assert places(store, "later") == [place]
        store.redis.zrem(store.key(place, "q"), "later")
    assert places(store, "m1") == []
    assert names(store) == {"message:later"}
    assert snapshot(store, store.key("message", "later")) == before


@pytest.mark.parametrize("form", WRITES)
def test_a_reply_in_a_later_form_is_left(broker: Broker, store: Store, form: str) -> None:
    """A reader of replies removes what it has read, and nothing else."""
    key = store.key("message", "later")
    WRITES[form](store.redis, key)
    before = snapshot(store, key)
    store.redis.zadd(store.key("queue", "r"), {"later": 1})
    broker.publish([message("m1", "r")])
    found = store.run("reserve", ReadRequest(["r"], 10, {"r"}).arguments(33_000))[1]
    assert [one[0] for one in found] == [b"m1"]
    assert snapshot(store, key) == before
    assert not store.redis.exists(store.key("message", "m1"))


def test_a_message_that_cannot_be_read_waits_without_a_count(broker: Broker, store: Store) -> None:
    """A worker that has it in hand puts it back; a stale receipt touches nothing."""
    delivery = sent(broker, "m1")
    before = snapshot(store, store.key("message", "m1"))
    assert broker.leave([held(delivery)]) == 1
    assert broker.leave([held(delivery)]) == 0
    assert places(store, "m1") == ["delayed"]
    assert names(store) == {"message:m1"}
    assert snapshot(store, store.key("message", "m1")) == before


CLAIMS: dict[str, Callable[[Any, str], Any]] = {
    "a list": lambda redis, key: redis.rpush(key, "running"),
    "a string of another letter": lambda redis, key: redis.set(key, SEPARATOR.join(["S", "t", "s", "1", "1", "m0"])),
    "a string of another form": lambda redis, key: redis.set(key, f"R2{SEPARATOR}t"),
    "a hash in another state": lambda redis, key: redis.hset(
        key, mapping={"state": "sealed", "token": "t", "id": "m0"}
    ),
}


@pytest.mark.parametrize("form", CLAIMS)
def test_a_claim_in_a_later_form_is_not_taken(broker: Broker, claims: Claims, store: Store, form: str) -> None:
    """The message waits in place, with nothing counted; no script writes the claim, and none fails."""
    key = store.key("claim", FIRST.claim)
    CLAIMS[form](store.redis, key)
    before = snapshot(store, key)
    delivery = sent(broker)
    request = asking(delivery)
    assert claims.answers(claims.ask([request], together=True)) == [Parked(30)]
    assert places(store, "m1") == ["delayed"]
    assert names(store) == {f"claim:{FIRST.claim}"}
    (elsewhere,) = claims.take([FIRST])
    assert elsewhere == Busy(30)
    assert settle(claims, FIRST, "done") == "refused"
    stream, success = OutcomeStream(claims), Settlement(FIRST, "done", Event("m1", "succeeded"))
    stream.record(success)
    stream.begin(FIRST)
    assert stream.answers() == [(success, False)]
    assert claims.renew([FIRST]) == [False]
    assert not claims.runs(FIRST.claim, "t1")
    assert claims.is_done(FIRST.claim, "m1") is False
    claims.release(FIRST.claim, "t1")
    claims.note_follow_ups_sent(FIRST.claim, "m1")
    assert store.run("remember_done", [FIRST.claim, "m1", 60_000]) == 0
    broker.publish([message("m2")])
    (other,) = broker.reserve(["q"], 1)
    assert broker.heartbeat([held(other, FIRST)]) == ["held"]
    assert snapshot(store, key) == before
    entries: Any = store.redis.xrange(store.key("journal"))
    assert [fields[b"refused"] for _, fields in entries] == [b"1"]  # what was done is not lost in silence


@pytest.mark.parametrize("mark", ["paused-until", "list"])
def test_a_mark_of_cancelling_in_a_later_form(broker: Broker, claims: Claims, store: Store, mark: str) -> None:
    """Nobody knows whether the message may run: it waits."""
    key = store.key("cancel", "m1")
    store.redis.rpush(key, "a") if mark == "list" else store.redis.set(key, mark)
    before = snapshot(store, key)
    assert take(claims, asking(sent(broker))) == Parked(30)
    assert names(store) == {"cancel:m1"}
    assert snapshot(store, key) == before


def test_a_batch_in_a_later_state_keeps_it(broker: Broker, claims: Claims, store: Store) -> None:
    """Its `finish` ends, and the state that a later release gave it stays."""
    store.redis.hset(store.key("batch", "b"), mapping={"state": "sealing", "chunks": "1"})
    request = asking(sent(broker))
    granted(claims, request)
    join = Join(Member("b", "finish"), "done", timedelta(days=1))
    assert settle(claims, request, "done", join=join) == "recorded"
    assert store.redis.hget(store.key("batch", "b"), "state") == b"sealing"
    assert names(store) == {"batch:b"}


def test_a_beat_of_a_later_release_is_not_forgotten(store: Store) -> None:
    """Nor does it keep the others from being listed."""
    beats = Beats(store)
    raw = json.dumps({"leads": True})
    store.redis.hset(store.key("beats"), mapping={"later": raw, "old": f"0:{10**12}:{10**12}"})
    beats.tick("a:1", leads=True)
    assert store.redis.hgetall(store.key("beats")).keys() == {b"later", b"a:1"}
    assert [one.name for one in beats.listing()] == ["a:1"]


def test_a_queue_of_another_type_is_left_under_another_name(broker: Broker, store: Store) -> None:
    """What has no values that this release can read is not lost, and the queue works."""
    store.redis.xadd(store.key("queue", "q"), {"a": "b"})
    broker.publish([message("m1")])
    assert [one.tag for one in broker.reserve(["q"], 10)] == [b"m1"]
    (one,) = left_alone(store)
    assert (one.kind, one.name.split(":")[:2]) == ("stream", ["aside", "q"])
    entries: Any = store.redis.xrange(store.key(one.name))
    assert [fields for _, fields in entries] == [{b"a": b"b"}]
