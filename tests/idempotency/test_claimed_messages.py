"""Claims and their messages together: parking, and what an outcome does (protocol 4, 5, 7, 8)."""

from dataclasses import replace
from typing import Any

import pytest

from conventions.broker.redis_broker import Broker
from conventions.idempotency.claim_answers import Busy, Done, Parked, Stale
from conventions.idempotency.claims import Claims
from conventions.records.journal import Event
from conventions.storage.redis_store import Store
from tests.claiming import (
    FIRST,
    OTHER,
    asking,
    due_in,
    end_lease,
    end_wait,
    granted,
    handed_out,
    held,
    message,
    once_more,
    places,
    sent,
    settle,
    take,
)
from tests.stored_messages import deliveries


def journal(store: Store) -> list[Any]:
    """The entries of the journal."""
    entries: Any = store.redis.xrange(store.key("journal"))
    return [fields for _, fields in entries]


# Parking.


def test_a_duplicate_is_parked_in_place(broker: Broker, claims: Claims, store: Store) -> None:
    """It waits for the lease in its own queue, under its own tag; no delivery is counted, and nobody holds it."""
    granted(claims, asking(sent(broker)))
    delivery = sent(broker, "m2")
    duplicate = asking(delivery, OTHER)
    answer = take(claims, duplicate)
    assert isinstance(answer, Parked)
    assert 25 < answer.wait <= 30
    assert places(store, "m2") == ["delayed"]
    assert answer.wait - 5 < due_in(store, "m2") <= answer.wait + 0.2
    assert deliveries(store, "m2") == 0
    assert take(claims, duplicate) == Stale()
    assert broker.acknowledge([held(delivery)]) == 0


def test_parking_never_takes_longer_than_30_s(broker: Broker, claims: Claims, store: Store) -> None:
    """However long the other job has asked for, or waits."""
    request = asking(sent(broker))
    granted(claims, request)
    claims.renew([request], 3600)
    assert take(claims, asking(sent(broker, "m2"), OTHER)) == Parked(30)
    settle(claims, request, "released", wait=3600, action="retry")
    assert take(claims, asking(sent(broker, "m3"), OTHER, message_id="m3")) == Parked(30)
    assert due_in(store, "m3") < 30.3


@pytest.mark.parametrize("state", ["done", "dead", "released"])
def test_an_outcome_wakes_what_is_parked(broker: Broker, claims: Claims, store: Store, state: str) -> None:
    """At once, and at the place that it had; not while a back-off lasts."""
    request = asking(sent(broker))
    granted(claims, request)
    take(claims, asking(sent(broker, "m2"), OTHER))
    broker.publish([message("m3")])
    if state == "released":
        settle(claims, request, state, wait=50, action="park")
        assert places(store, "m2") == ["delayed"]
        return
    settle(claims, request, state)
    assert [one.tag for one in broker.reserve(["q"], 2)] == [b"m2", b"m3"]


def test_a_returned_job_wakes_what_is_parked(broker: Broker, claims: Claims, store: Store) -> None:
    """Its key is free."""
    delivery = sent(broker)
    granted(claims, request := asking(delivery))
    take(claims, asking(sent(broker, "m2"), OTHER))
    broker.give_back([held(delivery, request)], wait=9)
    assert places(store, "m2") == ["queue"]
    granted(claims, asking(handed_out(broker), OTHER))


def test_where_the_broker_is_elsewhere_nothing_is_parked(claims: Claims) -> None:
    """The caller is told how long it must make the message wait."""
    granted(claims, FIRST)
    assert isinstance(take(claims, OTHER), Busy)


# Outcomes.


def test_a_retry_rewrites_the_message_in_place(broker: Broker, claims: Claims, store: Store) -> None:
    """One message: attempt, headers and due time change in the step that releases the claim; deliveries start anew."""
    request = asking(sent(broker))
    granted(claims, request)
    how: dict[str, Any] = {"wait": 100, "action": "retry", "changes": {"retries": 1}}
    assert settle(claims, request, "released", **how) == "recorded"
    assert settle(claims, request, "released", **how) == "recorded"
    assert 90 < due_in(store, "m1") <= 100
    end_wait(store, "m1", "delayed")
    again = handed_out(broker)
    assert (again.changes, again.payload, again.deliveries) == ({"retries": 1}, b"m1", 1)
    end_lease(store)
    granted(claims, asking(again, attempt=2))
    assert len(journal(store)) == 1


def test_a_retry_keeps_its_wait_although_its_message_is_ready(broker: Broker, claims: Claims, store: Store) -> None:
    """Nothing was heard of it while it ran, so the sweep made it ready before its failure was recorded."""
    request = asking(sent(broker))
    granted(claims, request)
    end_wait(store, "m1", "inflight")
    broker.sweep()
    settle(claims, request, "released", wait=25, action="retry")
    assert places(store, "m1") == ["queue"]
    answer = take(claims, asking(handed_out(broker), attempt=2))
    assert isinstance(answer, Parked)
    assert 24 < due_in(store, "m1") <= 25.2


def test_a_retry_keeps_its_wait_while_the_message_is_elsewhere(broker: Broker, claims: Claims, store: Store) -> None:
    """Parked behind its own job, whose first delivery was not heard for a while: it waits for the back-off."""
    first = asking(sent(broker))
    granted(claims, first)
    second = asking(once_more(broker, store))
    assert isinstance(take(claims, second), Parked)
    settle(claims, first, "released", wait=500, action="retry")
    assert 490 < due_in(store, "m1") <= 500


def test_a_retry_in_place_passes_over_a_delivery_of_before(broker: Broker, claims: Claims, store: Store) -> None:
    """Another worker holds the message as it was: it is parked, and comes again as it is now."""
    first = asking(sent(broker))
    granted(claims, first)
    second = asking(once_more(broker, store))
    settle(claims, first, "released", wait=20, action="retry", changes={"retries": 1})
    assert isinstance(take(claims, second), Parked)
    assert due_in(store, "m1") > 15
    end_wait(store, "m1", "delayed")
    assert handed_out(broker).changes == {"retries": 1}


@pytest.mark.parametrize("times", [1, 2])
def test_a_message_that_is_gone_is_missing(broker: Broker, claims: Claims, store: Store, times: int) -> None:
    """After a flush: the caller must send the next attempt; a lost reply does not hide it."""
    request = asking(sent(broker))
    granted(claims, request)
    store.redis.delete(*store.redis.keys(store.key("*")))
    for _ in range(times):
        assert settle(claims, request, "released", wait=5, action="retry") == "missing"
    assert len(journal(store)) == 1


def test_an_outcome_and_its_event_are_one(broker: Broker, claims: Claims, store: Store) -> None:
    """With the claim's fence, once however often it is sent; refused for a token that is not the holder's."""
    stale = asking(sent(broker))
    granted(claims, stale)
    end_lease(store)
    fresh = asking(once_more(broker, store))
    fence = granted(claims, fresh)
    assert settle(claims, stale, result=1) == "refused"
    assert [settle(claims, fresh, "dead") for _ in range(2)] == ["recorded"] * 2
    refused, recorded = journal(store)
    assert (refused[b"refused"], b"refused" in recorded) == (b"1", False)
    assert Event.decode(recorded[b"event"]).token == fresh.token
    assert int(recorded[b"fence"]) == fence
    assert recorded[b"message"] == b"m1"
    assert places(store, "m1") == []


def test_a_job_that_ends_while_it_is_returned_is_recorded(broker: Broker, claims: Claims, store: Store) -> None:
    """Its message goes back at a shutdown in the very moment in which it ends: the message finds the result."""
    delivery = sent(broker)
    request = asking(delivery)
    granted(claims, request)
    broker.give_back([held(delivery, request)])
    assert settle(claims, request, result=7) == "recorded"
    assert take(claims, asking(handed_out(broker))) == Done(7, "m1", follow_ups_sent=False)
    assert len(journal(store)) == 1


def test_what_follows_is_sent_until_it_is_noted(broker: Broker, claims: Claims, store: Store) -> None:
    """The message is kept; when it comes again it says whether callbacks were sent; only who holds it notes that."""
    delivery = sent(broker)
    request = asking(delivery)
    granted(claims, request)
    settle(claims, request, result=7, action="keep")
    again = once_more(broker, store)
    assert take(claims, asking(again)) == Done(7, "m1", follow_ups_sent=False)
    assert take(claims, OTHER) == Done(7, "m1", follow_ups_sent=False)
    assert broker.acknowledge([held(delivery, request)._replace(followed_id="m1")]) == 0
    assert take(claims, replace(FIRST, token="t3")) == Done(7, "m1", follow_ups_sent=False), "a stale receipt"
    assert broker.acknowledge([held(again, request)._replace(followed_id="m1")]) == 1
    assert take(claims, replace(FIRST, token="t3")) == Done(7, "m1", follow_ups_sent=True)
    duplicate = asking(sent(broker, "m2"), OTHER)
    assert take(claims, duplicate) == Done(7, "m1", follow_ups_sent=False)
    assert broker.acknowledge([(duplicate.held or held(again))._replace(claim=FIRST.claim, followed_id="m2")]) == 1


def test_what_nobody_has_ended_comes_again(broker: Broker, claims: Claims, store: Store) -> None:
    """Celery acknowledges it all the same, as after a fault of its own: ever later, and its deliveries are counted."""
    for times, wait in ((1, 1), (2, 2), (3, 4)):
        delivery = sent(broker) if times == 1 else handed_out(broker)
        assert delivery.deliveries == times
        assert broker.acknowledge([held(delivery, FIRST)]) == 0
        assert wait - 0.5 < due_in(store, "m1") <= wait
        end_wait(store, "m1", "delayed")
    running = handed_out(broker)
    granted(claims, asking(running))
    assert broker.acknowledge([held(running, FIRST)]) == 0
    assert due_in(store, "m1") <= 1, "a start is counted now, and deliveries anew"
