"""Starts without an outcome: the claim keeps each until the journal has it, once. Of real processes: tests/crash/test_interrupted.py."""

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conventions.broker.redis_broker import Broker
from conventions.core.settings import DEFAULT_START_LIMIT
from conventions.idempotency.claim_answers import Cancelled, Granted, Poison
from conventions.idempotency.claims import ClaimRequest, Claims
from conventions.idempotency.interrupted_start import NO_SIGN, InterruptedStart, interrupted_starts
from conventions.records.journal import Event, JournalEntry
from conventions.storage.redis_store import Store
from tests.claiming import (
    FIRST,
    OTHER,
    asking,
    claim_key,
    end_lease,
    granted,
    handed_out,
    held,
    kept_by,
    once_more,
    sent,
    settle,
    take,
)


def told_by(claims: Claims, request: ClaimRequest) -> list[InterruptedStart]:
    """What a claim that is granted tells of earlier starts."""
    answer = take(claims, request)
    assert isinstance(answer, Granted), answer
    return list(answer.interrupted)


def event_of(one: InterruptedStart) -> Event:
    """As a worker writes it."""
    return Event(one.message_id, "interrupted", token=one.token, attempt=one.attempt, generation=one.generation)


def recorded(store: Store) -> list[JournalEntry]:
    """The journal."""
    redis: Any = store.redis
    return [JournalEntry.read(id_, fields, None) for id_, fields in redis.xrange(store.key("journal"))]


def test_a_lapsed_start_is_told_to_the_next_one(claims: Claims, store: Store) -> None:
    """As after the death of a worker: when it began, and that its lease is over; the same answer to the same question."""
    granted(claims, replace(FIRST, attempt=2))
    end_lease(store)
    again = replace(FIRST, token="t2", attempt=2)
    (one,) = told_by(claims, again)
    assert (one.token, one.message_id, one.attempt, one.generation, one.why) == ("t1", "m1", 2, 0, NO_SIGN)
    assert one.began_at <= one.ended_at
    assert told_by(claims, again) == [one], "its first reply was lost"


@pytest.mark.parametrize("counted", [True, False])
def test_a_returned_start_is_told_with_its_reason(broker: Broker, claims: Claims, counted: bool) -> None:
    """Its process died, or its worker was stopped."""
    delivery = sent(broker)
    request = asking(delivery)
    granted(claims, request)
    broker.give_back([held(delivery, request)], counted=counted, why="killed by signal 9")
    (one,) = told_by(claims, asking(handed_out(broker)))
    assert (one.token, one.why) == (delivery.receipt, "killed by signal 9")


def test_each_is_written_once(claims: Claims, store: Store) -> None:
    """By whoever asks, at the time of its end; what is written is kept no more, what came since is."""
    granted(claims, FIRST)
    end_lease(store)
    seen = told_by(claims, replace(FIRST, token="t2"))
    end_lease(store)
    both = told_by(claims, replace(FIRST, token="t3"))
    assert [one.token for one in both] == ["t1", "t2"]
    for _ in range(2):
        claims.record_interrupted(FIRST.claim, [(one, event_of(one)) for one in seen])
    (entry,) = recorded(store)
    assert (entry.event.token, entry.at) == ("t1", seen[0].ended_at)
    assert [one.token for one in kept_by(claims)] == ["t2"]
    claims.record_interrupted(FIRST.claim, [(one, event_of(one)) for one in both])
    assert [one.event.token for one in recorded(store)] == ["t1", "t2"]
    assert kept_by(claims) == ()


def test_poison_and_a_cancelled_message_tell_of_them(claims: Claims, store: Store) -> None:
    """So that the history has the starts before the end."""
    for number in range(DEFAULT_START_LIMIT):
        granted(claims, replace(FIRST, token=f"t{number}"))
        end_lease(store)
    poison = take(claims, replace(FIRST, token="last"))
    assert isinstance(poison, Poison)
    assert [one.token for one in poison.interrupted] == ["t0", "t1", "t2"]
    other = replace(FIRST, key="other", message_id="m9")
    granted(claims, other)
    end_lease(store, other)
    store.redis.set(claims.cancel_key("m9"), "any")
    cancelled = take(claims, replace(other, token="t2"))
    assert isinstance(cancelled, Cancelled)
    assert [one.token for one in cancelled.interrupted] == ["t1"]


def test_one_with_an_outcome_is_none(broker: Broker, claims: Claims, store: Store) -> None:
    """It was retried, or was told to have hung, or has ended while its message went back."""
    delivery = sent(broker)
    request = asking(delivery)
    granted(claims, request)
    settle(claims, request, "released", action="retry")
    second = asking(handed_out(broker), attempt=2)
    assert told_by(claims, second) == []
    claims.record_hung(second.claim, second.token, Event("m1", "hung", token=second.token))
    end_lease(store)
    third = asking(once_more(broker, store), attempt=2)
    assert told_by(claims, third) == []
    broker.give_back([held(once_more(broker, store), third)])
    assert [one.token for one in kept_by(claims)] == [third.token]
    assert settle(claims, third, "dead") == "recorded"
    assert kept_by(claims) == ()
    assert [one.event.kind for one in recorded(store)] == ["released", "hung", "dead"]


def test_who_does_not_hold_the_claim_tells_nothing(claims: Claims, store: Store) -> None:
    """That a job hangs is written only while it runs."""
    granted(claims, FIRST)
    claims.record_hung(FIRST.claim, "another", Event("m1", "hung", token="another"))
    settle(claims, FIRST)
    claims.record_hung(FIRST.claim, FIRST.token, Event("m1", "hung", token=FIRST.token))
    assert [one.event.kind for one in recorded(store)] == ["done"]


def test_a_member_of_a_group_that_has_not_begun_has_no_start(claims: Claims, store: Store) -> None:
    """Its worker was killed while the first one ran."""
    requests = [replace(FIRST, key=f"k{number}", message_id=f"m{number}") for number in range(3)]
    with closing(claims.ask(requests, together=True)) as asked:
        claims.answers(asked)
    for one in requests:
        end_lease(store, one)
    assert [len(told_by(claims, replace(one, token="t2"))) for one in requests] == [1, 0, 0]


def test_another_message_with_the_key_is_told_whose_it_was(claims: Claims, store: Store) -> None:
    """It writes nothing of that; the first one does when it comes again."""
    granted(claims, FIRST)
    end_lease(store)
    (one,) = told_by(claims, OTHER)
    assert one.message_id == FIRST.message_id
    settle(claims, OTHER)
    assert [one.token for one in getattr(take(claims, FIRST), "interrupted")] == ["t1"]  # noqa: B009  # of one kind of answer


def test_what_ends_without_another_start_is_told_of(claims: Claims, store: Store) -> None:
    """It is revoked, too late, or removed while it waits; but not the start that this end is of."""
    for number, before in enumerate(("nobody", "lapsed")):
        one = replace(FIRST, key=f"k{number}", message_id=f"m{number}")
        granted(claims, one)
        end_lease(store, one)
        if before == "lapsed":
            assert claims.end_running(one.claim, one.message_id, 0, "another", loser="lapsed") == "ended"
        own, other = ((one.claim, one.message_id, token) for token in (one.token, "another"))
        assert claims.kept_interrupted([own]) == ([()] if before == "nobody" else [kept_by(claims, one)])
        ((start,),) = claims.kept_interrupted([other])
        assert start.token == one.token
        claims.record_interrupted(one.claim, [(start, event_of(start))])
        assert claims.kept_interrupted([other]) == [()]
    assert [one.event.message_id for one in recorded(store)] == ["m0", "m1"]
    assert claims.kept_interrupted([("Task:none", "m7", "t")]) == [()]


def test_one_that_is_ended_by_force_has_that_end(claims: Claims) -> None:
    """Its own start is no start without an outcome."""
    granted(claims, FIRST)
    assert claims.end_running(FIRST.claim, FIRST.message_id, 0, FIRST.token, loser="itself") == "ended"
    assert kept_by(claims) == ()


def test_an_outcome_leaves_the_starts_of_other_messages(claims: Claims, store: Store) -> None:
    """They share the key; the second one ends while it goes back."""
    granted(claims, FIRST)
    end_lease(store)
    granted(claims, OTHER)
    claims.release(OTHER.claim, OTHER.token, "signal 9")
    assert [one.message_id for one in kept_by(claims)] == ["m1", "m2"]
    assert settle(claims, OTHER) == "recorded"
    assert [one.message_id for one in kept_by(claims)] == ["m1"]


def test_the_latest_starts_are_kept(claims: Claims, store: Store) -> None:
    """Those of messages that never come again give way."""
    for number in range(12):
        one = replace(FIRST, token=f"t{number}", message_id=f"m{number}")
        granted(claims, one)
        claims.release(FIRST.claim, one.token, "x")
        store.redis.hset(claim_key(store), "starts", 0)
    assert [one.message_id for one in kept_by(claims)] == [f"m{number}" for number in range(2, 12)]


def test_two_starts_of_one_delivery_are_one_event(claims: Claims, store: Store) -> None:
    """They have one name, so SQL has one row; the counts must not have two."""
    granted(claims, replace(FIRST, start="one"))
    granted(claims, replace(FIRST, start="two"))
    end_lease(store)
    assert [one.token for one in told_by(claims, replace(FIRST, token="t2"))] == ["t1"]


def test_a_letter_names_no_old_reason(broker: Broker, claims: Claims, store: Store) -> None:
    """An orderly stop does not count, so it is no reason; nor is an earlier death where the last one is not known."""
    delivery = sent(broker)
    request = asking(delivery)
    granted(claims, request)
    broker.give_back([held(delivery, request)], why="stopped")
    request = asking(delivery := handed_out(broker))
    granted(claims, request)
    broker.give_back([held(delivery, request)], counted=True, why="signal 9")
    delivery = handed_out(broker)
    for _ in range(DEFAULT_START_LIMIT - 1):
        granted(claims, asking(delivery))
        end_lease(store)
        delivery = once_more(broker, store)
    poison = take(claims, asking(delivery))
    assert isinstance(poison, Poison)
    assert poison.why == ""
    assert [one.why for one in poison.interrupted] == ["stopped", "signal 9", *[NO_SIGN] * (DEFAULT_START_LIMIT - 1)]


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_whatever_a_claim_keeps_can_be_read(kept: bytes) -> None:
    """Another release, or program, wrote it."""
    assert isinstance(interrupted_starts(kept), tuple)
