"""What comes back after it had begun is ready from then on: what it ran is no wait, and says nothing of how busy the queue is."""

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conventions.broker.header_names import READY_AT
from conventions.broker.redis_broker import Broker
from conventions.core.time_units import moment
from conventions.idempotency.claim_answers import Granted
from conventions.idempotency.claims import Claims
from conventions.storage.redis_store import Store, script_source
from tests.claiming import FIRST, asking, end_wait, granted, handed_out, held, message, sent

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AS_WRITTEN: dict[str, Any] = {
    "retries": 1,
    "x": {"a": [], "b": {}, "c": 1e300, "d": 'x"}', "e": "\u3042,"},
    "n": None,
    READY_AT: "old",
}


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001  # hypothesis adds the zone
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_server_writes_times_as_python_reads_them(store: Store, at: datetime) -> None:
    """To the millisecond, in any year."""
    ms = (at - EPOCH) // timedelta(milliseconds=1)
    text: Any = store.redis.eval(f"{script_source('ready_again')}\nreturn moment(tonumber(ARGV[1]))", 0, ms)
    assert moment(text.decode()) == EPOCH + timedelta(milliseconds=ms)


def ready_at(store: Store, tag: str = "m1") -> datetime | None:
    """What its changed headers say."""
    changes = changes_of(store, tag)
    return moment(json.loads(changes)[READY_AT]) if changes else None


def changes_of(store: Store, tag: str = "m1") -> str:
    """Its changed headers, as they are written; none of a message that nothing has changed."""
    key, redis = store.key("message", tag), store.redis
    found: Any = redis.hget(key, "changes") if redis.type(key) == b"hash" else None
    return "" if found is None else found.decode()


def now(store: Store) -> datetime:
    """By the server's clock."""
    seconds, microseconds = store.redis.time()
    return EPOCH + timedelta(seconds=seconds, microseconds=microseconds)


@pytest.mark.parametrize("wait", [0.0, 100.0])
def test_a_job_that_had_begun_is_ready_when_it_comes_again(
    broker: Broker, claims: Claims, store: Store, wait: float
) -> None:
    """After a shutdown, at once; after the death of its process, when it is due. Its other headers stay as they were written."""
    delivery = sent(broker)
    broker.put_off(held(delivery), 0.0, AS_WRITTEN, "elsewhere")
    end_wait(store, "m1", "delayed")
    broker.sweep(["q"])
    for _ in range(3):
        delivery = handed_out(broker)
        assert {**delivery.changes, READY_AT: "old"} == AS_WRITTEN
        request = asking(delivery)
        granted(claims, request)
        before = now(store) - timedelta(milliseconds=1)
        broker.give_back([held(delivery, request)], wait=wait, counted=wait > 0)
        found = ready_at(store)
        assert found is not None
        assert before <= found - timedelta(seconds=wait) <= now(store)
        if wait:
            end_wait(store, "m1", "delayed")
            broker.sweep(["q"])
    assert changes_of(store).count(READY_AT) == 1


def test_a_message_with_many_spaces(broker: Broker, claims: Claims, store: Store) -> None:
    """A pattern over them takes the square of their number, in which the server serves nobody."""
    broker.put_off(held(sent(broker)), 0.0, {"actor": " " * 200_000}, "elsewhere")
    end_wait(store, "m1", "delayed")
    broker.sweep(["q"])
    delivery = handed_out(broker)
    granted(claims, request := asking(delivery))
    broker.give_back([held(delivery, request)])
    assert ready_at(store) is not None
    assert handed_out(broker).changes["actor"] == " " * 200_000


def test_a_message_without_changes(broker: Broker, claims: Claims, store: Store) -> None:
    """It has this one then."""
    delivery = sent(broker)
    granted(claims, request := asking(delivery))
    broker.give_back([held(delivery, request)])
    assert ready_at(store) is not None
    assert set(handed_out(broker).changes) == {READY_AT}


def test_what_had_not_begun_has_waited(broker: Broker, claims: Claims, store: Store) -> None:
    """Read ahead and given back; or granted behind another job of its group, which never ended."""
    delivery = sent(broker)
    broker.give_back([held(delivery)])
    assert ready_at(store) is None
    broker.publish([message("m2")])
    first, second = broker.reserve(["q"], 2)
    requests = [asking(first), asking(second, replace(FIRST, key="other", message_id="m2"))]
    with closing(claims.ask(requests, together=True)) as asked:
        assert [type(one) for one in claims.answers(asked)] == [Granted, Granted]
    broker.give_back([held(one, request) for one, request in zip((first, second), requests, strict=True)])
    assert ready_at(store) is not None
    assert ready_at(store, "m2") is None


def test_a_job_of_a_worker_that_is_gone(broker: Broker, claims: Claims, store: Store) -> None:
    """It lacks nothing but a worker from the moment in which that is known."""
    begun, read = sent(broker), sent(broker, "m2")
    granted(claims, asking(begun))
    before = now(store) - timedelta(milliseconds=1)
    for tag in ("m1", "m2"):
        end_wait(store, tag, "inflight")
    assert read.tag == b"m2"
    assert broker.sweep(["q"]).recovered == 2
    found = ready_at(store)
    assert found is not None
    assert before <= found <= now(store)
    assert ready_at(store, "m2") is None
