"""Claims against a real server: one winner, fences, stored results, and what a lost reply does (R4)."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conventions.core.canonical_json import digest, encode
from conventions.core.settings import DEFAULT_START_LIMIT
from conventions.idempotency.claim_answers import Answer, Busy, Cancelled, Conflict, Done, Granted
from conventions.idempotency.claims import ClaimRequest, Claims
from conventions.storage.redis_store import Store
from tests.claiming import (
    AGAIN,
    FIRST,
    HORIZON,
    OTHER,
    claim_fields,
    claim_key,
    end_lease,
    granted,
    kept_by,
    later,
    settle,
    take,
)
from tests.support import patient, wait_until


@pytest.fixture
def brief(store: Store) -> Claims:
    """Claims of the same store whose lease lapses within the test."""
    return Claims(store, lease=0.05)


def test_one_of_many_at_once_wins(claims: Claims) -> None:
    """Sixteen messages of one job ask together, ten times over: one runs, the others are told for how long."""
    together = threading.Barrier(16)

    def ask(number: int, turn: int) -> Answer:
        request = replace(FIRST, key=f"key{turn}", token=f"t{number}", message_id=f"m{number}")
        together.wait(patient(10))
        return take(claims, request)

    with ThreadPoolExecutor(16) as pool:
        for turn in range(10):
            answers = list(pool.map(ask, range(16), [turn] * 16))
            assert sum(isinstance(answer, Granted) for answer in answers) == 1
            waits = [answer.wait for answer in answers if isinstance(answer, Busy)]
            assert len(waits) == 15
            assert all(20 < wait <= 30 for wait in waits)


def test_duplicates_get_the_stored_result(claims: Claims) -> None:
    """Whoever comes later, also under another id, gets what the first one returned, and who it was."""
    granted(claims, FIRST)
    assert settle(claims, FIRST, "done", {"sent": True, "count": [1, None, "é"]}) == "recorded"
    expected = Done({"sent": True, "count": [1, None, "é"]}, "m1", follow_ups_sent=False)
    assert [take(claims, request) for request in (FIRST, AGAIN, OTHER)] == [expected] * 3


def test_a_job_that_returned_nothing_is_done_too(claims: Claims) -> None:
    """`None` is a result."""
    granted(claims, FIRST)
    assert settle(claims, FIRST) == "recorded"
    assert take(claims, OTHER) == Done(None, "m1", follow_ups_sent=False)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)  # a busy machine is no failure
@given(result=json_values, number=st.integers(0), is_written=st.booleans())
def test_any_result_is_given_back_as_it_was(store_of_module: Store, result: Any, number: int, is_written: bool) -> None:
    """Results of every JSON shape pass through the scripts unchanged, also where they were written as JSON before."""
    claims = Claims(store_of_module, lease=30)
    request = replace(FIRST, key=digest({"result": result, "number": number, "is_written": is_written}))
    claims.take([request])
    assert settle(claims, request, "done", encode(result) if is_written else result) == "recorded"
    assert take(claims, request) == Done(result, "m1", follow_ups_sent=False)


@pytest.fixture(scope="module")
def store_of_module(valkey_url: str) -> Iterator[Store]:
    """A store that outlives the examples of a property."""
    store = Store(valkey_url, "property")
    yield store
    store.redis.close()


def test_a_lapsed_lease_goes_to_the_next_with_a_higher_fence(brief: Claims) -> None:
    """The holder vanished; the next one is told apart from it by the fence."""
    before = granted(brief, FIRST)
    assert isinstance(take(brief, OTHER), Busy)
    assert later(brief, OTHER) > before


def test_a_fence_rises_also_when_the_store_was_emptied(claims: Claims, store: Store) -> None:
    """It comes from the clock, so a flush does not start it again at 1."""
    before = granted(claims, FIRST)
    store.redis.delete(*store.redis.keys(store.key("*")))
    assert granted(claims, OTHER) > before


def test_a_fence_rises_also_when_the_clock_was_set_back(claims: Claims, store: Store) -> None:
    """The one before came from a clock that was an hour ahead."""
    before = granted(claims, FIRST) + 3_600_000_000
    store.redis.hset(claim_key(store), mapping={"fence": before, "until": 1})
    assert granted(claims, OTHER) == before + 1
    settle(claims, OTHER, "released")
    assert granted(claims, AGAIN) == before + 2


def test_a_job_that_is_ended_from_outside_records_nothing_more(claims: Claims) -> None:
    """Its process may live on, but it has lost its claim. The key is free, and no start is held against whoever is next."""
    for number in range(DEFAULT_START_LIMIT + 1):
        request = replace(FIRST, token=f"t{number}", message_id=f"m{number}")
        answer = take(claims, request)
        assert isinstance(answer, Granted)
        assert answer.starts == 1
        assert ended(claims, request, "nobody") == "runs"
        assert claims.renew([request]) == [True]
        assert ended(claims, request) == "ended"
        assert ended(claims, request, "nobody") == "ended"
        assert claims.renew([request]) == [False]
        for state in ("done", "released", "dead"):
            assert settle(claims, request, state) == "refused"


def ended(claims: Claims, request: ClaimRequest, loser: Any = "itself") -> str:
    """What is said where the message of a request is ended from outside."""
    return claims.end_running(request.claim, request.message_id, request.generation, request.token, loser=loser)


@pytest.mark.parametrize("state", ["done", "dead", "released", "continued"])
def test_an_attempt_that_has_ended_is_not_ended_from_outside(claims: Claims, state: Any) -> None:
    """What it has recorded stands."""
    granted(claims, FIRST)
    settle(claims, FIRST, state, 1)
    assert ended(claims, FIRST) == state
    assert settle(claims, FIRST, state, 1) == "recorded"


@pytest.mark.parametrize(("state", "found"), [("released", ""), ("continued", "ended")])
def test_what_an_earlier_attempt_has_left(claims: Claims, state: Any, found: str) -> None:
    """It says nothing of this one. A continued claim is free from now on: nobody goes on with it."""
    granted(claims, FIRST)
    settle(claims, FIRST, state, wait=60)
    assert ended(claims, AGAIN) == found
    assert isinstance(take(claims, OTHER), Granted if state == "continued" else Busy)


def test_only_the_message_itself_is_ended_from_outside(claims: Claims, store: Store) -> None:
    """Neither another one with its key, nor a later generation, nor, unless that is wanted, a job that runs."""
    assert ended(claims, FIRST) == ""
    redriven = replace(FIRST, generation=1)
    granted(claims, redriven)
    assert ended(claims, replace(OTHER, generation=1)) == ""
    assert ended(claims, FIRST) == ""
    assert ended(claims, redriven, "lapsed") == "runs"
    assert ended(claims, replace(redriven, token="another delivery")) == "runs"
    assert claims.renew([redriven]) == [True]
    end_lease(store)
    assert ended(claims, redriven, "lapsed") == "ended"
    assert settle(claims, redriven) == "refused"


def test_to_look_changes_nothing(claims: Claims, store: Store) -> None:
    """Also where the claim would be ended: its starts count, and its process may still record an end."""
    granted(claims, FIRST)
    claims.release(FIRST.claim, FIRST.token)
    before = claim_fields(store)
    assert ended(claims, AGAIN, "nobody") == "ended"
    assert claim_fields(store) == before


def test_the_letter_of_an_earlier_generation_is_no_end_of_a_redrive(claims: Claims) -> None:
    """Which has not begun yet."""
    granted(claims, FIRST)
    settle(claims, FIRST, "dead", "error")
    assert ended(claims, replace(FIRST, generation=1)) == ""


@pytest.mark.parametrize("how", ["it stands still", "its process seemed to be dead"])
def test_one_that_wakes_after_its_message_was_cancelled_records_nothing(claims: Claims, store: Store, how: str) -> None:
    """The next delivery tells all that it was cancelled, so nothing else may be recorded."""
    granted(claims, FIRST)
    if how == "it stands still":
        end_lease(store)
    else:
        claims.release(FIRST.claim, FIRST.token)
    claims.cancel(FIRST.message_id, HORIZON)
    assert isinstance(take(claims, AGAIN), Cancelled)
    assert settle(claims, FIRST, "done", 1) == "refused"
    granted(claims, OTHER)


def test_a_redriven_job_goes_on_where_an_older_delivery_is_cancelled(claims: Claims, store: Store) -> None:
    """The mark is for the generation of before."""
    redriven = replace(FIRST, generation=1)
    granted(claims, redriven)
    end_lease(store)
    store.redis.set(claims.cancel_key(FIRST.message_id), 0)
    assert isinstance(take(claims, AGAIN), Cancelled)
    assert settle(claims, redriven, "done", 1) == "recorded"


def test_a_stale_holder_cannot_settle(brief: Claims, claims: Claims) -> None:
    """Its claim is another's now: what it did is not recorded, and the other is not disturbed."""
    granted(brief, FIRST)
    later(claims, OTHER)
    for state in ("done", "released", "dead"):
        assert settle(claims, FIRST, state, "stale") == "refused"
    assert settle(claims, OTHER, "done", "fresh") == "recorded"
    done = Done("fresh", "m2", follow_ups_sent=False, interrupted=kept_by(claims))
    assert [one.message_id for one in done.interrupted] == [FIRST.message_id], "its start had no outcome"
    assert take(claims, FIRST) == done
    assert settle(claims, FIRST, "dead") == "refused"
    assert take(claims, FIRST) == done


def test_a_late_holder_may_settle(brief: Claims, store: Store) -> None:
    """A lapsed lease alone refuses nothing: nobody else took the job over."""
    granted(brief, FIRST)

    def lapsed() -> bool:
        seconds, microseconds = store.redis.time()
        until: Any = store.redis.hget(store.key("claim", "Task", "key"), "until")
        return int(until) < seconds * 1000 + microseconds // 1000

    wait_until(lapsed, 5, "the lease lapses")
    assert settle(brief, FIRST, "done", 1) == "recorded"
    assert take(brief, OTHER) == Done(1, "m1", follow_ups_sent=False)


def test_the_same_token_gets_the_same_answer(claims: Claims) -> None:
    """A client that lost a reply asks again: it must not park behind itself, nor lose a settled job."""
    fence = granted(claims, FIRST)
    assert granted(claims, FIRST) == fence
    assert settle(claims, FIRST, "done", 7) == "recorded"
    assert settle(claims, FIRST, "done", 7) == "recorded"
    assert settle(claims, FIRST, "done", "changed its mind") == "recorded"
    assert take(claims, FIRST) == Done(7, "m1", follow_ups_sent=False)


def test_a_redelivery_waits_for_the_lease(claims: Claims) -> None:
    """The same message with another token is another worker: it waits, whatever its id."""
    granted(claims, FIRST)
    assert isinstance(take(claims, AGAIN), Busy)


@pytest.mark.parametrize("state", ["running", "done", "released"])
def test_another_payload_under_the_same_key_is_a_conflict(claims: Claims, state: Any) -> None:
    """The key was used by another message for something else; the answer names that message."""
    granted(claims, FIRST)
    if state != "running":
        settle(claims, FIRST, state)
    assert take(claims, replace(OTHER, fingerprint="other")) == Conflict("m1")


def test_a_message_is_in_no_conflict_with_itself(claims: Claims) -> None:
    """A deploy that adds a default changes the fingerprint of a message in flight, which stays the same message."""
    granted(claims, FIRST)
    settle(claims, FIRST, "released")
    granted(claims, replace(AGAIN, fingerprint="changed by a deploy"))


def test_a_back_off_binds_every_message(claims: Claims) -> None:
    """While a job waits for its next attempt, neither a duplicate nor its own message can jump in; a redrive can."""
    before = granted(claims, FIRST)
    assert settle(claims, FIRST, "released", wait=20) == "recorded"
    for early in (OTHER, AGAIN):
        answer = take(claims, early)
        assert isinstance(answer, Busy)
        assert 15 < answer.wait <= 20
    assert granted(claims, replace(AGAIN, generation=1)) > before


def test_a_back_off_ends(claims: Claims) -> None:
    """When the wait is over and the message did not come, a duplicate may run."""
    granted(claims, FIRST)
    settle(claims, FIRST, "released", wait=0.05)
    later(claims, OTHER)


def test_a_claim_released_without_a_wait_is_free(claims: Claims) -> None:
    """As after a killed child."""
    granted(claims, FIRST)
    settle(claims, FIRST, "released")
    granted(claims, OTHER)


def test_a_message_has_ended_as_done_or_dead(claims: Claims) -> None:
    """A dead letter binds its own generation; another message of the job has not ended with it."""
    granted(claims, FIRST)
    assert not claims.has_ended(FIRST.claim, FIRST.message_id, 0)
    settle(claims, FIRST, "dead")
    assert claims.has_ended(FIRST.claim, FIRST.message_id, 0)
    assert not claims.has_ended(FIRST.claim, FIRST.message_id, 1)
    assert not claims.has_ended(FIRST.claim, OTHER.message_id, 0)
    granted(claims, redriven := replace(AGAIN, generation=1))
    settle(claims, redriven, "done")
    assert claims.has_ended(FIRST.claim, FIRST.message_id, 1)


def test_a_dead_job_may_run_again(claims: Claims) -> None:
    """A redrive, or a corrected message under the same key, claims afresh, with a higher fence."""
    before = granted(claims, FIRST)
    assert settle(claims, FIRST, "dead") == "recorded"
    assert granted(claims, replace(OTHER, fingerprint="corrected")) > before
