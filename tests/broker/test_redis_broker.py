"""`Broker` against a real server: order, wake-up, waits, receipts, one test for each rule."""

import threading
from typing import Any

import pytest

from conventions.broker.delivery import ReadRequest, brought
from conventions.broker.redis_broker import SWEEP_LIMIT, Broker, Sizes
from conventions.idempotency.claims import Claims
from conventions.storage.redis_store import Store
from tests.claiming import (
    asking,
    due_in,
    end_lease,
    end_wait,
    granted,
    handed_out,
    held,
    message,
    places,
    settle,
)
from tests.stored_messages import stored
from tests.support import patient, wait_until


def read(broker: Broker, store: Store, *queues: str, most: int = 10, **wanted: Any) -> Any:
    """Read as a worker does; returns when the next message is due, and what came."""
    broker.load_scripts()
    run: Any = store.redis.execute_command
    return brought(run(*broker.reserve_command(ReadRequest(queues, most, **wanted))))


def tags(broker: Broker, queues: list[str], count: int = 100) -> list[str]:
    """Reserve, and name what came."""
    return [one.tag.decode() for one in broker.reserve(queues, count)]


# Order.


def test_messages_come_in_the_order_of_their_arrival(broker: Broker) -> None:
    """Within one priority, whether sent together or one by one, read one by one or together."""
    broker.publish([message(f"m{number}") for number in range(5)])
    for number in range(5, 12):
        broker.publish([message(f"m{number}")])
    assert tags(broker, ["q"], 1) + tags(broker, ["q"], 4) + tags(broker, ["q"]) == [f"m{n}" for n in range(12)]


def test_a_higher_priority_comes_first(broker: Broker) -> None:
    """9 before 0, whatever came first."""
    broker.publish([message(f"{number}{letter}", priority=number) for letter in "ab" for number in range(10)])
    assert tags(broker, ["q"]) == [f"{number}{letter}" for number in range(9, -1, -1) for letter in "ab"]


def test_few_of_some_queues(broker: Broker, store: Store) -> None:
    """A read brings no more of them, all together, than it wants; the next worker is told of the rest."""
    broker.publish([message(f"{queue}{number}", queue) for queue in "abc" for number in range(4)])

    def next_read(few: int, most: int = 10) -> list[str]:
        return [
            one.tag.decode() for one in read(broker, store, "a", "b", "c", most=most, few_of={"b", "c"}, few=few)[1]
        ]

    assert next_read(1, most=6) == ["a0", "a1", "b0", "a2", "a3"]
    assert next_read(3) == ["b1", "b2", "b3"]
    store.redis.delete(*(store.key("wake", queue) for queue in "abc"))
    assert next_read(1) == ["c0"]
    assert [store.redis.exists(store.key("wake", queue)) for queue in "abc"] == [0, 0, 1]
    assert next_read(10) == ["c1", "c2", "c3"]


def test_queues_share_a_read(broker: Broker) -> None:
    """A long queue does not starve another; what one does not use goes to the others."""
    broker.publish([message(f"a{number}", "a") for number in range(20)])
    broker.publish([message(f"b{number}", "b") for number in range(4)])
    assert tags(broker, ["a", "b"], 6) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert sorted(tags(broker, ["a", "b"], 8)) == sorted([*(f"a{number}" for number in range(3, 10)), "b3"])
    assert len(tags(broker, ["a", "b"], 5)) == 5


def test_what_is_due_comes_in_the_order_of_its_time(broker: Broker, store: Store) -> None:
    """Behind what is ready, but before a lower priority."""
    waits = {"late": 30.0, "early": 10.0, "middle": 20.0, "later": 40.0}
    broker.publish([message(tag, wait=wait) for tag, wait in waits.items()])
    broker.publish([message("ready"), message("low", priority=2)])
    due = {"late": 3, "early": 1, "middle": 2}
    store.redis.zadd(store.key("delayed", "q"), due)
    assert tags(broker, ["q"]) == ["ready", "early", "middle", "late", "low"]
    assert places(store, "later") == ["delayed"]


def test_a_read_says_when_the_next_message_is_due(broker: Broker, store: Store) -> None:
    """Of all queues that were read, so that an idle worker knows how long it may sleep."""
    assert read(broker, store, "a", "b") == (None, [])
    broker.publish([message("a1", "a", wait=50), message("b1", "b", wait=20), message("b2", "b", wait=70)])
    assert [read(broker, store, *queues)[0] for queues in ("a", "b", "ab")] == pytest.approx([50, 20, 20], abs=9)


# Idle workers.


def test_a_message_wakes_one_idle_worker(broker: Broker, store: Store) -> None:
    """Of several that block, exactly one gets the mark; the other sleeps until the next message."""
    woken: list[int] = []

    def sleep(number: int) -> None:
        client = store.new_client(client_name="sleeper")
        run: Any = client.execute_command
        if run(*broker.wait_command(["q"], 20)):
            woken.append(number)
        client.close()

    def blocked() -> int:
        clients: Any = store.redis.client_list()
        return sum(one["name"] == "sleeper" and "b" in one["flags"] for one in clients)

    sleepers = [threading.Thread(target=sleep, args=(number,)) for number in range(2)]
    for sleeper in sleepers:
        sleeper.start()
    for left in (1, 0):
        wait_until(lambda left=left: blocked() == left + 1, 5, "they sleep")  # type: ignore[misc]
        broker.publish([message(f"m{left}")])
        wait_until(lambda left=left: len(woken) == 2 - left, 5, "one wakes")  # type: ignore[misc]
        assert blocked() == left
    for sleeper in sleepers:
        sleeper.join(patient(10))


def test_the_mark_is_set_while_something_is_left(broker: Broker, store: Store) -> None:
    """So that the next idle worker wakes; also for a message that waits, whose time it must learn."""

    def marked() -> bool:
        return bool(store.redis.zpopmin(store.key("wake", "q")))

    broker.publish([message("m1"), message("m2")])
    assert (marked(), marked()) == (True, False)
    handed_out(broker)
    assert marked()
    handed_out(broker)
    assert not marked()
    broker.publish([message("m3", wait=50)])
    assert marked()


def test_a_mark_that_died_with_its_reader_is_set_again(broker: Broker, store: Store) -> None:
    """By the sweep: otherwise the message would wait until the next one is sent."""
    broker.publish([message("m1")])
    store.redis.delete(store.key("wake", "q"))
    broker.sweep()
    assert store.redis.exists(store.key("wake", "q"))


# Deliveries.


def test_messages_that_need_no_acknowledgement_end_when_they_are_read(broker: Broker, store: Store) -> None:
    """As those of remote control; others beside them are held."""
    broker.publish([message("r1", "replies"), message("m1")])
    _, found = read(broker, store, "replies", "q", unacknowledged=("replies",))
    assert [(one.tag, one.payload) for one in found] == [(b"r1", b"r1"), (b"m1", b"m1")]
    assert (places(store, "r1", "replies"), places(store, "m1")) == ([], ["inflight"])


def test_a_message_in_hand_is_nobody_elses_while_its_heart_beats(broker: Broker, store: Store) -> None:
    """33 s after the last sign of life it goes to another, who has a receipt of its own."""
    broker.publish([message("m1")])
    first = handed_out(broker)
    assert 25 < due_in(store, "m1", "inflight") <= 33
    end_wait(store, "m1", "inflight")
    assert broker.heartbeat([held(first)]) == ["held"]
    assert 25 < due_in(store, "m1", "inflight") <= 33
    assert broker.sweep().recovered == 0
    end_wait(store, "m1", "inflight")
    assert broker.sweep().recovered == 1
    second = handed_out(broker)
    assert (second.deliveries, first.deliveries) == (2, 1)
    assert second.receipt != first.receipt


def test_a_stale_receipt_touches_nothing(broker: Broker, claims: Claims, store: Store) -> None:
    """A worker that slept past its time neither keeps, returns nor removes what another holds."""
    broker.publish([message("m1")])
    stale = handed_out(broker)
    end_wait(store, "m1", "inflight")
    broker.sweep()
    fresh = handed_out(broker)
    end_wait(store, "m1", "inflight")
    assert broker.heartbeat([held(stale)]) == ["lost"]
    assert broker.give_back([held(stale)], counted=True) == 0
    assert broker.acknowledge([held(stale)]) == 0
    for action in ("remove", "retry", "park"):
        settle(claims, asking(stale), "released", wait=50, action=action, claimed=False, event=None)
    assert due_in(store, "m1", "inflight") < 0
    assert stored(store, "m1")["receipt"].decode() == fresh.receipt
    assert broker.acknowledge([held(fresh)]) == 1
    assert places(store, "m1") == []


@pytest.mark.parametrize("wait", [0.0, 5.0])
def test_what_is_gone_takes_nothing_with_it(wait: float, broker: Broker, store: Store) -> None:
    """Somebody has deleted a message that a worker holds: what waits in its queue stays there."""
    broker.publish([message("m1"), message("m2")])
    (taken,) = broker.reserve(["q"], 1)
    store.redis.delete(store.key("message", "m1"))
    assert broker.give_back([held(taken)], wait=wait) == 1
    assert tags(broker, ["q"]) == ["m2"]
    assert not store.redis.hexists(store.key("receipts"), "m1")


def test_a_message_of_another_program_that_becomes_due(broker: Broker, store: Store) -> None:
    """Is what it was, to the last byte."""
    for tag, text in (("m1", "hello, this is text"), ("m2", "a\x1fb\x1fc")):
        store.redis.set(store.key("message", tag), text)
        store.redis.zadd(store.key("delayed", "q"), {tag: 1})
    store.redis.sadd(store.key("queues"), "q")
    broker.sweep()
    assert sorted(one.payload for one in broker.reserve(["q"], 2)) == [b"a\x1fb\x1fc", b"hello, this is text"]


def test_a_heartbeat_tells_of_a_lease_that_is_over(broker: Broker, claims: Claims, store: Store) -> None:
    """Of a running claim that is its own, and of no other."""
    broker.publish([message("m1")])
    request = asking(delivery := handed_out(broker))
    granted(claims, request)
    assert broker.heartbeat([held(delivery, request)]) == ["held"]
    end_lease(store)
    assert broker.heartbeat([held(delivery, request), held(delivery)]) == ["lapsed", "held"]
    settle(claims, request, action="keep")
    assert broker.heartbeat([held(delivery, request)]) == ["held"]


@pytest.mark.parametrize("counted", [True, False])
def test_what_is_returned_goes_to_the_front(broker: Broker, counted: bool) -> None:
    """It keeps its place; whether the delivery counts depends on how it ended."""
    broker.publish([message("m1"), message("m2"), message("m3")])
    first, second = broker.reserve(["q"], 2)
    assert broker.give_back([held(second), held(first)], counted=counted) == 2
    found = broker.reserve(["q"], 3)
    assert [one.tag for one in found] == [b"m1", b"m2", b"m3"]
    assert [one.deliveries for one in found] == [2, 2, 1] if counted else [1, 1, 1]


def test_what_is_returned_may_have_to_wait(broker: Broker, store: Store) -> None:
    """As after a rejection."""
    broker.publish([message("m1")])
    broker.give_back([held(handed_out(broker))], wait=20)
    assert 15 < due_in(store, "m1") <= 20


# Many.


def test_the_sweep_finds_more_than_its_limit(broker: Broker, store: Store) -> None:
    """One call brings back everything, what is due and what is left, however much it is."""
    many = SWEEP_LIMIT + 500
    for queue in ("a", "b"):
        broker.publish([message(f"{queue}{number}", queue) for number in range(many)])
        broker.reserve([queue], many)
        broker.publish([message(f"d{queue}{number}", queue, wait=1000) for number in range(many)])
        for place in ("inflight", "delayed"):
            key = store.key(place, queue)
            found: Any = store.redis.zrange(key, 0, -1)
            store.redis.zadd(key, dict.fromkeys(found, 1))
    assert broker.sweep().recovered >= many
    assert broker.sizes("a") == broker.sizes("b") == Sizes(2 * many, 0, 0)


@pytest.mark.thorough
@pytest.mark.own_server
def test_recovery_costs_the_same_behind_any_backlog(broker: Broker, store: Store) -> None:
    """With 100,000 messages queued, the sweep and the reads send the very commands that they send with none."""

    def commands() -> dict[str, int]:
        stats: Any = store.redis.info("commandstats")
        return {name: one["calls"] for name, one in stats.items()}

    def recover() -> dict[str, int]:
        broker.publish([message(f"m{number}", priority=9) for number in range(10)])
        taken = broker.reserve(["q"], 10)
        broker.publish([message("due", wait=50)])
        store.redis.zadd(store.key("inflight", "q"), {one.tag: 1 for one in taken})
        store.redis.zadd(store.key("delayed", "q"), {"due": 1})
        before = commands()
        assert broker.sweep().recovered == 10
        found = broker.reserve(["q"], 10)
        after = commands()
        assert [one.tag for one in found] == [one.tag for one in taken]
        broker.acknowledge([held(one) for one in found])
        return {name: calls - before.get(name, 0) for name, calls in after.items() if calls != before.get(name, 0)}

    recover()  # the scripts are there now
    few = recover()
    assert broker.drop("q") == 1
    for start in range(0, 100_000, 5000):
        broker.publish([message(f"q{start + number}") for number in range(5000)])
    assert recover() == few
    assert broker.sizes("q").ready == 100_001
    assert broker.drop("q") == 100_001


def test_purging_leaves_what_workers_hold(broker: Broker, store: Store) -> None:
    """Messages that are ready and that wait go, with all they have."""
    broker.publish([message("m1"), message("m2"), message("m3", wait=50), message("o1", "other")])
    handed_out(broker)
    assert broker.drop("q") == 2
    assert (broker.sizes("q"), broker.sizes("other")) == (Sizes(0, 0, 1), Sizes(1, 0, 0))
    assert not store.redis.exists(store.key("message", "m2"), store.key("message", "m3"))
