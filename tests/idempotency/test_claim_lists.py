"""Claims in lists, their leases and the life of their keys, against a real server (R4, R12)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine

from conventions.broker.redis_broker import Broker
from conventions.core.canonical_json import digest
from conventions.idempotency.claim_answers import Busy, Done, Granted
from conventions.idempotency.claims import Claims, Settlement
from conventions.storage.redis_store import Store
from tests.claiming import (
    AGAIN,
    FIRST,
    HORIZON,
    OTHER,
    asking,
    claim_key,
    granted,
    handed_out,
    held,
    sent,
    settle,
    take,
)


@pytest.mark.own_server
def test_many_claims_take_one_round_trip(claims: Claims, store: Store) -> None:
    """Answers come in the order of the requests; the same key twice has one winner."""
    requests = [replace(FIRST, key=f"k{n // 2}", token=f"t{n}", message_id=f"m{n}") for n in range(20)]
    claims.take(requests[:1])  # the script is there now
    calls = _scripts_run(store)
    answers = claims.take(requests)
    assert _scripts_run(store) == calls + 1
    assert [type(answer) for answer in answers] == [Granted, Busy] * 10
    settled = claims.settle([Settlement(request, "done", None, n) for n, request in enumerate(requests)])
    assert settled == ["recorded", "refused"] * 10
    assert [answer.result for answer in claims.take(requests) if isinstance(answer, Done)] == [
        n // 2 * 2 for n in range(20)
    ]
    for nothing in (claims.take([]), claims.settle([]), claims.renew([])):
        assert not nothing


def _scripts_run(store: Store) -> int:
    stats: Any = store.redis.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


def test_renewing_extends_a_lease_and_never_shortens_it(claims: Claims, store: Store) -> None:
    """A heartbeat of 30 s does not undo `extend_lease(300)` (R12)."""
    granted(claims, FIRST)
    assert claims.renew([FIRST], 300) == [True]
    assert claims.renew([FIRST]) == [True]
    seconds, _ = store.redis.time()
    until: Any = store.redis.hget(claim_key(store), "until")
    assert 290 < int(until) / 1000 - seconds <= 301


def test_only_the_holder_can_renew(claims: Claims) -> None:
    """Not a duplicate, not a stale holder, not after the end, not what was never claimed."""
    assert claims.renew([FIRST]) == [False]
    granted(claims, FIRST)
    assert claims.renew([OTHER, AGAIN, FIRST]) == [False, False, True]
    settle(claims, FIRST)
    assert claims.renew([FIRST]) == [False]


# What has no time to live, and why.
LASTING = {
    "message": "a message lives until it has ended",
    "queue": "the same",
    "delayed": "the same",
    "inflight": "the same",
    "receipts": "the same, of messages that are held",
    "started": "the same",
    "wake": "one mark for each queue",
    "queues": "the names of queues",
    "sequence": "the order of arrival",
    "journal": "until it is recorded in SQL",
    "members": "a day: who lives",
    "parked_in": "a minute: for who counts",
}


def test_every_key_is_forgotten_some_day(claims: Claims, store: Store) -> None:
    """Claims, whatever their state, what is parked on them and cancel marks live for the horizon; the rest has a reason."""
    broker = Broker(store, journal_limit=100)
    for state in ("running", "done", "released", "dead"):
        request = asking(sent(broker, state), message_id=state, key=state)
        granted(claims, request)
        take(claims, asking(sent(broker, f"{state}2"), OTHER, key=state))
        if state != "running":
            settle(claims, request, state, wait=5, action="keep")
        claims.renew([request])
        broker.cancel(state, HORIZON)
        claims.note_follow_ups_sent(request.claim, state)
    keys: Any = store.redis.keys(store.key("*"))
    names = {key.decode().removeprefix(store.key("")): key for key in keys}
    passing = {name: key for name, key in names.items() if name.partition(":")[0] not in LASTING}
    assert len(passing) >= 4 + 4 + 1
    for name, key in passing.items():
        left = timedelta(milliseconds=int(store.redis.pttl(key)))
        assert HORIZON - timedelta(minutes=1) < left <= HORIZON, name


def test_an_ended_job_is_remembered_from_its_end(claims: Claims, store: Store) -> None:
    """A job that ran for an hour is kept for the whole time after that hour."""
    request = replace(FIRST, horizon=timedelta(seconds=100))
    granted(claims, request)
    assert 90_000 < int(store.redis.pttl(claim_key(store))) <= 100_000
    store.redis.pexpire(claim_key(store), 5_000)
    settle(claims, request)
    assert int(store.redis.pttl(claim_key(store))) > 90_000


def test_no_time_comes_from_a_worker(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for when a message was sent: whatever a worker's clock says, the scripts are told the very same."""
    ids = (f"{number:032x}" for number in range(10_000))
    told: list[list[tuple[str, Any]]] = []
    monkeypatch.setattr("conventions.broker.redis_broker.token_hex", lambda _: next(ids))
    monkeypatch.setattr("conventions.broker.delivery.new_name", lambda: next(ids))
    monkeypatch.setattr("uuid.uuid4", lambda: SimpleNamespace(hex=next(ids)))
    for year in (1971, 2026, 2090):
        ids = (f"{number:032x}" for number in range(10_000))
        with time_machine.travel(datetime(year, 1, 1, tzinfo=UTC), tick=False):
            told.append(_told(store))
        store.redis.delete(*store.redis.keys(store.key("*")))
    assert told[0] == told[1] == told[2]
    assert {script for script, _ in told[0]} == {
        "acknowledge", "cancel", "claim", "claim_renew", "drop_queue", "give_back", "heartbeat", "publish", "reserve", "settle", "take_from_dead_workers",
    }  # fmt: skip


def _told(store: Store) -> list[tuple[str, Any]]:
    """Everything that the scripts are told in the life of some messages."""
    told: list[tuple[str, Any]] = []

    class Telling:
        def _run(self, script: str, arguments: Any) -> Any:
            told.append((script, list(arguments)))
            return super()._run(script, arguments)  # type: ignore[misc]

        def _publish_arguments(self, publications: Any) -> Any:
            arguments = super()._publish_arguments(publications)  # type: ignore[misc]
            told.append(("publish", list(arguments)))
            return arguments

    broker: Any = type("B", (Telling, Broker), {})(store, journal_limit=100)
    claims: Any = type("C", (Telling, Claims), {})(store, lease=30)
    delivery = sent(broker, "m1")
    request = asking(delivery, sent_at=datetime(2026, 1, 1, tzinfo=UTC), horizon=timedelta(days=40_000))
    granted(claims, request)
    broker.heartbeat([held(delivery, request)])
    claims.renew([request])
    settle(claims, request, "released", wait=60, action="retry")
    broker.cancel("m1", HORIZON)
    broker.give_back([held(handed_out(broker))], wait=5)
    broker.sweep()
    broker.acknowledge([held(sent(broker, "m2"))])
    broker.drop("q")
    return told


def test_a_digest_depends_on_values_alone() -> None:
    """The order of keys does not matter, everything else does."""
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    others: list[dict[str, Any]] = [{}, {"a": 1}, {"a": "1"}, {"a": None}, {"a": [1]}, {"b": 1}]
    assert len({digest(value) for value in others}) == len(others)
    assert len(digest({})) == 32


def test_what_follows_was_sent_by_another_delivery(claims: Claims) -> None:
    """It is noted all the same, since that delivery came after the one whose outcome counts; not while the job runs."""
    granted(claims, FIRST)
    claims.note_follow_ups_sent(FIRST.claim, FIRST.message_id)
    settle(claims, FIRST, "done", action="keep")
    assert claims.waits_for_steps(FIRST.claim, FIRST.message_id, 0)
    claims.note_follow_ups_sent(FIRST.claim, FIRST.message_id)
    assert not claims.waits_for_steps(FIRST.claim, FIRST.message_id, 0)
