"""Claims in lists, their leases and the life of their keys, against a real server (R4, R12)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from conventions.idempotency import (
    Busy,
    Claims,
    Done,
    Granted,
    Settlement,
    digest,
)
from conventions.store import Store
from tests.claiming import AGAIN, FIRST, OTHER, granted, settle, take


@pytest.fixture
def claims(store: Store) -> Claims:
    """Claims with a lease that no test outlives."""
    return Claims(store, lease=30, keep=timedelta(days=8))


def test_many_claims_take_one_round_trip(claims: Claims, store: Store) -> None:
    """Answers come in the order of the requests; the same key twice has one winner."""
    requests = [replace(FIRST, key=f"k{n // 2}", token=f"t{n}", message_id=f"m{n}") for n in range(20)]
    claims.take(requests[:1])  # the script is there now
    calls = _scripts_run(store)
    answers = claims.take(requests)
    assert _scripts_run(store) == calls + 1
    assert [type(answer) for answer in answers] == [Granted, Busy] * 10
    settled = claims.settle([Settlement(request, "done", n) for n, request in enumerate(requests)])
    assert settled == [True, False] * 10
    assert [answer.result for answer in claims.take(requests) if isinstance(answer, Done)] == [
        n // 2 * 2 for n in range(20)
    ]
    for nothing in (claims.take([]), claims.settle([]), claims.renew([])):
        assert not nothing


def _scripts_run(store: Store) -> int:
    stats: Any = store.redis.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


def test_renewing_extends_a_lease_and_never_shortens_it(claims: Claims) -> None:
    """A heartbeat of 30 s does not undo `extend_lease(300)` (R12)."""
    granted(claims, FIRST)
    assert claims.renew([FIRST], 300) == [True]
    assert claims.renew([FIRST]) == [True]
    answer = take(claims, OTHER)
    assert isinstance(answer, Busy)
    assert 299 < answer.wait <= 300


def test_only_the_holder_can_renew(claims: Claims) -> None:
    """Not a duplicate, not a stale holder, not after the end, not what was never claimed."""
    assert claims.renew([FIRST]) == [False]
    granted(claims, FIRST)
    assert claims.renew([OTHER, AGAIN, FIRST]) == [False, False, True]
    settle(claims, FIRST)
    assert claims.renew([FIRST]) == [False]


def test_every_key_is_forgotten_some_day(claims: Claims, store: Store) -> None:
    """Each claim and each cancel mark lives as long as it is kept, whatever its state."""
    for state in ("running", "done", "released", "dead"):
        request = replace(FIRST, key=state)
        granted(claims, request)
        if state != "running":
            settle(claims, request, state, wait=5)
        claims.renew([request])
    claims.cancel("m9")
    keys: Any = store.redis.keys(store.key("*"))
    assert len(keys) == 5
    for key in keys:
        assert timedelta(days=7) < timedelta(milliseconds=int(store.redis.pttl(key))) <= timedelta(days=8), key


def test_an_ended_job_is_remembered_from_its_end(store: Store) -> None:
    """A job that ran for an hour is kept for the whole time after that hour."""
    claims = Claims(store, lease=30, keep=timedelta(seconds=100))
    granted(claims, FIRST)
    key = store.key("claim", "Task", "key")
    store.redis.pexpire(key, 5_000)
    settle(claims, FIRST)
    assert int(store.redis.pttl(key)) > 90_000


def test_a_digest_depends_on_values_alone() -> None:
    """The order of keys does not matter, everything else does."""
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    others: list[dict[str, Any]] = [{}, {"a": 1}, {"a": "1"}, {"a": None}, {"a": [1]}, {"b": 1}]
    assert len({digest(value) for value in others}) == len(others)
    assert len(digest({})) == 32
