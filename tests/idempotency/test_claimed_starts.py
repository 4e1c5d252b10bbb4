"""Claims and their messages together: starts, dead letters, copies that are behind or too old (protocol 4, 6, 7)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from conventions.broker.redis_broker import Broker
from conventions.core.settings import DEFAULT_START_LIMIT
from conventions.idempotency.claim_answers import Dead, Granted, Poison, Superseded, TooOld
from conventions.idempotency.claims import Claims
from conventions.storage.redis_store import Store
from tests.claiming import (
    FIRST,
    HORIZON,
    OTHER,
    asking,
    claim_key,
    end_lease,
    granted,
    handed_out,
    held,
    once_more,
    sent,
    settle,
    take,
)

# Starts.


def test_three_starts_without_an_outcome_are_poison(broker: Broker, claims: Claims, store: Store) -> None:
    """The fourth worker gets the claim to end the message, and must not run it, however often it asks."""
    delivery = sent(broker)
    for number in range(DEFAULT_START_LIMIT):
        request = asking(delivery)
        answer = take(claims, request)
        assert isinstance(answer, Granted)
        assert answer.starts == number + 1
        assert take(claims, request) == answer
        broker.give_back([held(delivery, request)], counted=True)
        delivery = handed_out(broker)
    poison = take(claims, asking(delivery))
    assert isinstance(poison, Poison)
    assert poison.starts == DEFAULT_START_LIMIT
    assert take(claims, asking(delivery)) == poison
    end_lease(store)
    assert isinstance(take(claims, asking(once_more(broker, store))), Poison)


def test_a_lapse_counts_as_a_start(claims: Claims, store: Store) -> None:
    """As after the death of the whole worker, of which nobody tells."""
    for number in range(DEFAULT_START_LIMIT):
        granted(claims, replace(FIRST, token=f"t{number}"))
        end_lease(store)
    assert isinstance(take(claims, replace(FIRST, token="last")), Poison)


@pytest.mark.parametrize("orderly", ["returned", "retried", "waits"])
def test_an_outcome_or_an_orderly_return_clears_the_starts(broker: Broker, claims: Claims, orderly: str) -> None:
    """Deployed ten times during one job, or retried ten times: that is no poison."""
    delivery = sent(broker)
    for number in range(DEFAULT_START_LIMIT * 2):
        request = asking(delivery, attempt=number + 1 if orderly == "retried" else 1)
        granted(claims, request)
        if orderly == "returned":
            broker.give_back([held(delivery, request)])
        else:
            settle(claims, request, "released", action="retry" if orderly == "retried" else "park")
        delivery = handed_out(broker)
        assert delivery.deliveries == 1


# Copies and redrives.


def test_a_copy_that_is_behind_is_superseded(broker: Broker, claims: Claims) -> None:
    """By attempt or by generation; an equal one waits, a higher one runs."""
    ahead = asking(sent(broker, digest="a"), attempt=2, generation=1)
    granted(claims, ahead)
    for attempt, generation in ((1, 1), (9, 0)):
        copy = asking(sent(broker, digest=f"{attempt}{generation}"), attempt=attempt, generation=generation)
        assert take(claims, copy) == Superseded()
    settle(claims, ahead, "released")
    granted(claims, asking(sent(broker, digest="b"), attempt=2, generation=1))


def test_a_dead_letter_binds_its_generation(broker: Broker, claims: Claims) -> None:
    """The same message again is dead, a redrive of it runs, also with a corrected payload."""
    request = asking(sent(broker))
    granted(claims, request)
    settle(claims, request, "dead", "ValueError: no")
    assert take(claims, asking(sent(broker))) == Dead("ValueError: no")
    granted(claims, asking(sent(broker, "m1", generation=1), generation=1, fingerprint="corrected"))


def test_a_dead_letter_that_its_task_has_not_heard_of_stays_dead(broker: Broker, claims: Claims, store: Store) -> None:
    """Its message is kept; it does not run again, although another has used the key, or the claims are lost."""
    request = asking(sent(broker))
    granted(claims, request)
    settle(claims, request, "dead", "ValueError: no", action="keep")
    assert take(claims, asking(once_more(broker, store))) == Dead("ValueError: no")
    granted(claims, OTHER)
    settle(claims, OTHER, "dead", "another's error")
    assert take(claims, asking(once_more(broker, store))) == Dead("")
    store.redis.delete(claim_key(store))
    assert take(claims, asking(once_more(broker, store))) == Dead("")


def test_a_pool_may_begin_a_delivery_twice(claims: Claims) -> None:
    """Its process died, and Celery's pool gave the job to another: that is a start of its own, under the same token."""
    first, second = replace(FIRST, start="one"), replace(FIRST, start="two")
    assert take(claims, first) == take(claims, first)
    assert take(claims, first).starts == 1  # type: ignore[union-attr]  # it is granted
    assert take(claims, second).starts == 2  # type: ignore[union-attr]  # the same


def test_a_released_job_is_not_settled_by_what_is_behind(claims: Claims) -> None:
    """Its process was thought dead: it may still say how it ended, but not an attempt of before, which was frozen."""
    second = replace(FIRST, token="t2", attempt=2)
    granted(claims, FIRST)
    settle(claims, FIRST, "released")
    granted(claims, second)
    claims.release(second.claim, second.token)
    assert settle(claims, replace(FIRST, token="frozen")) == "refused"
    assert settle(claims, second) == "recorded"


@pytest.mark.parametrize(("age", "expected"), [(-1, Granted), (1, TooOld)])
def test_a_message_beyond_the_horizon_does_not_run(claims: Claims, age: int, expected: type) -> None:
    """Nobody can tell whether it ran; where its claim is still known, that decides."""
    sent_at = datetime.now(UTC) - HORIZON - timedelta(minutes=age)
    request = replace(FIRST, sent_at=sent_at)
    assert isinstance(take(claims, request), expected)
    assert take(claims, request) == take(claims, request)
    granted(claims, replace(FIRST, key="other"))
    settle(claims, replace(FIRST, key="other"), "released")
    granted(claims, replace(request, key="other"))
