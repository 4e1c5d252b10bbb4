"""Keys that somebody deletes behind our back: no message is there for ever, and none is swallowed that is sent again."""

from typing import Any

import pytest

from conventions.broker.redis_broker import Broker, Sizes
from conventions.idempotency.claim_answers import Granted, Superseded
from conventions.idempotency.claims import Claims
from conventions.records.journal import JournalEntry
from conventions.storage.redis_store import Store
from tests.claiming import FIRST, asking, end_wait, granted, handed_out, held, message, settle, take


def delete(store: Store, *parts: str) -> None:
    """Delete a key."""
    assert store.redis.delete(store.key(*parts)) == 1


def lost(store: Store) -> list[tuple[str, str | None]]:
    """Ids and queues of the messages that the journal calls lost."""
    redis: Any = store.redis
    events = [
        JournalEntry.read(id_, fields, store.entry_signatures).event
        for id_, fields in redis.xrange(store.key("journal"))
    ]
    return [(one.message_id, one.queue) for one in events if one.kind == "lost"]


def test_what_was_in_flight_is_found_again(broker: Broker, store: Store) -> None:
    """Its workers have their time to be heard; then it goes to others, in its order."""
    broker.publish([message(f"m{number}") for number in range(3)])
    taken = broker.reserve(["q"], 3)
    delete(store, "inflight", "q")
    assert broker.sweep().found == 3
    assert (broker.sweep().found, broker.sizes("q")) == (0, Sizes(0, 0, 3))
    assert broker.heartbeat([held(taken[0])]) == ["held"]
    for one in taken[1:]:
        end_wait(store, one.tag.decode(), "inflight")
    assert broker.sweep().recovered == 2
    assert [one.tag for one in broker.reserve(["q"], 3)] == [b"m1", b"m2"]
    assert lost(store) == []


def test_a_heartbeat_says_that_a_message_is_in_flight(broker: Broker, store: Store) -> None:
    """Before any sweep."""
    broker.publish([message("m1")])
    delivery = handed_out(broker)
    delete(store, "inflight", "q")
    assert broker.heartbeat([held(delivery)]) == ["held"]
    assert broker.sizes("q").in_flight == 1
    assert broker.acknowledge([held(delivery)]) == 1


@pytest.mark.parametrize("place", ["queue", "delayed"])
def test_a_message_that_is_sent_again_has_a_place(broker: Broker, store: Store, place: str) -> None:
    """The same one is there once, and waits as long as it says now; another one under its id goes beside it."""
    first = message("m1", wait=60 if place == "delayed" else 0, digest="d")
    broker.publish([first])
    delete(store, place, "q")
    assert broker.publish([first]) == [""]
    assert broker.sizes("q") == (Sizes(0, 1, 0) if place == "delayed" else Sizes(1, 0, 0))
    delete(store, place, "q")
    (other,) = broker.publish([message("m1", digest="other")])
    assert other.startswith("m1~")
    assert {one.tag for one in broker.reserve(["q"], 3)} == {b"m1", other.encode()}


def test_many_that_are_sent_again_have_a_place(broker: Broker, store: Store) -> None:
    """In one call."""
    several = [message(f"m{number}", digest="d") for number in range(10)]
    broker.publish(several)
    delete(store, "queue", "q")
    assert broker.publish([*several, message("new")]) == [""] * 10 + ["new"]
    assert broker.sizes("q").ready == 11


def test_a_message_in_flight_that_is_sent_again_comes_again(broker: Broker, store: Store) -> None:
    """When nothing is heard of its worker; it is never there twice."""
    broker.publish([message("m1", digest="d")])
    handed_out(broker)
    delete(store, "inflight", "q")
    assert broker.publish([message("m1", digest="d")]) == [""]
    assert broker.sizes("q") == Sizes(0, 0, 1)
    end_wait(store, "m1", "inflight")
    assert broker.sweep().recovered == 1
    assert handed_out(broker).tag == b"m1"


@pytest.mark.parametrize("place", ["inflight", "delayed"])
def test_a_tag_without_a_message_is_recorded_as_lost(broker: Broker, store: Store, place: str) -> None:
    """When its time comes."""
    broker.publish([message("m1", wait=60 if place == "delayed" else 0)])
    if place == "inflight":
        handed_out(broker)
    delete(store, "message", "m1")
    end_wait(store, "m1", place)
    assert broker.sweep().lost == (place == "inflight")
    assert lost(store) == [("m1", "q")]
    assert broker.sizes("q") == Sizes(0, 0, 0)


def test_receipts_that_are_of_no_use_go(broker: Broker, store: Store) -> None:
    """Of a message that is gone, too, which is lost; of one that waits."""
    broker.publish([message("m1"), message("m2")])
    broker.reserve(["q"], 2)
    delete(store, "inflight", "q")
    delete(store, "message", "m1")
    store.redis.zadd(store.key("queue", "q"), {"m2": 1})
    assert broker.sweep().lost == 1
    assert (lost(store), store.redis.hlen(store.key("receipts"))) == ([("m1", "")], 0)


def test_the_queues_of_a_worker_are_swept_whatever_is_remembered(broker: Broker, store: Store) -> None:
    """The list of queues is a key like any other."""
    broker.publish([message("m1"), message("m2", wait=60)])
    handed_out(broker)
    delete(store, "queues")
    for tag, place in (("m1", "inflight"), ("m2", "delayed")):
        end_wait(store, tag, place)
    assert broker.sweep().recovered == 0
    assert broker.sweep(["q"]).recovered == 1
    assert broker.sizes("q").ready == 2


def test_a_job_whose_next_attempt_is_lost_runs_when_it_is_sent_again(
    broker: Broker, claims: Claims, store: Store
) -> None:
    """It is no older copy of an attempt that nobody makes."""
    broker.publish([message("m1")])
    request = asking(handed_out(broker))
    granted(claims, request)
    assert settle(claims, request, "released", action="retry", wait=0) == "recorded"
    delete(store, "message", "m1")
    delete(store, "delayed", "q")
    broker.publish([message("m1")])
    assert isinstance(take(claims, asking(handed_out(broker))), Granted)


def test_a_copy_that_is_behind_is_superseded(broker: Broker, claims: Claims, store: Store) -> None:
    """Where the message of the next attempt is there."""
    broker.publish([message("m1", digest="d")])
    request = asking(handed_out(broker))
    granted(claims, request)
    assert settle(claims, request, "released", action="retry", wait=60) == "recorded"
    broker.publish([message("m1", digest="other")])
    assert isinstance(take(claims, asking(handed_out(broker), FIRST)), Superseded)
