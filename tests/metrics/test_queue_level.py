"""How many messages a queue has, and since when the oldest is ready."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conventions.broker.header_names import READY_AT
from conventions.broker.queue_level import QueueLevel
from conventions.broker.redis_broker import Broker, Publication
from conventions.idempotency.claim_answers import Parked
from conventions.idempotency.claims import Claims
from tests.claiming import asking, handed_out, held, message, settle, take


def ago(seconds: float) -> str:
    """A moment, as headers have it."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def put(
    broker: Broker,
    tag: str,
    priority: int = 4,
    wait: float = 0.0,
    *,
    more: Mapping[str, Any] | None = None,
    **headers: Any,
) -> None:
    """Put a message into the queue `mail`."""
    payload = json.dumps({"body": "", "headers": {"id": tag, "task": "t", **headers, **(more or {})}, "properties": {}})
    broker.publish([Publication(tag, "mail", payload, priority, wait)])


def level(broker: Broker) -> QueueLevel:
    """That of the queue."""
    return broker.levels(["mail"])["mail"]


def test_an_empty_queue(broker: Broker) -> None:
    """And one that there is not."""
    assert broker.levels(["mail", "other"]) == dict.fromkeys(("mail", "other"), QueueLevel(0, 0, 0, 0, None))
    assert broker.levels([]) == {}


def test_each_place_is_counted(broker: Broker) -> None:
    """Ready, not due, at a worker."""
    for number in range(3):
        put(broker, f"m{number}")
    put(broker, "later", wait=60)
    broker.reserve(["mail"], 1)
    assert level(broker)[:4] == (2, 1, 0, 1)


@pytest.mark.parametrize(
    ("headers", "oldest"),
    [
        ({"x_enqueued_at": 50}, 50),
        ({"x_enqueued_at": 50, "eta": 20}, 20),  # its delay was deliberate
        ({"x_enqueued_at": 50, READY_AT: 7}, 7),
        ({"x_enqueued_at": 50, READY_AT: 7, "eta": 20}, 7),
        ({"x_enqueued_at": -50}, 0),  # the sender's clock is ahead
        ({"x_enqueued_at": "yesterday"}, None),
        ({}, None),
    ],
)
def test_since_when_a_message_is_ready(broker: Broker, headers: dict[str, Any], oldest: float | None) -> None:
    """By what it says, and unknown where it says nothing."""
    put(broker, "m", more={name: ago(value) if isinstance(value, int) else value for name, value in headers.items()})
    assert level(broker).oldest == (None if oldest is None else pytest.approx(oldest, abs=5))


def test_one_that_came_back_is_not_the_oldest(broker: Broker, claims: Claims) -> None:
    """Its worker was killed: it is the first one again, and waits since then; those behind it wait since they were sent."""
    for number, seconds in enumerate((90, 80, 70, 60)):
        put(broker, f"m{number}", x_enqueued_at=ago(seconds))
    for delivery in [handed_out(broker, "mail") for _ in range(2)]:
        request = asking(delivery, key=delivery.tag.decode(), message_id=delivery.tag.decode())
        take(claims, request)
        broker.give_back([held(delivery, request)], counted=True)
    assert level(broker).oldest == pytest.approx(70, abs=5)
    broker.reserve(["mail"], 2)
    assert level(broker).oldest == pytest.approx(70, abs=5)


def test_the_oldest_of_all_priorities(broker: Broker) -> None:
    """An urgent one comes first, and is not the oldest."""
    put(broker, "urgent", priority=9, x_enqueued_at=ago(1))
    put(broker, "low", priority=1, x_enqueued_at=ago(90))
    put(broker, "normal", priority=4, x_enqueued_at=ago(30))
    put(broker, "normal2", priority=4, x_enqueued_at=ago(300))  # behind that one
    assert level(broker).oldest == pytest.approx(90, abs=5)


def test_what_waits_for_its_key_is_parked(broker: Broker, claims: Claims) -> None:
    """Until the key is free, or it is due: then it is ready."""
    broker.publish([message("m1"), message("m2"), message("m3")])
    first = asking(handed_out(broker))
    take(claims, first)
    for id_ in ("m2", "m3"):
        assert isinstance(take(claims, asking(handed_out(broker), message_id=id_)), Parked)
    assert broker.levels(["q"])["q"][:4] == (0, 2, 2, 1)
    settle(claims, first)
    assert broker.levels(["q"])["q"][:4] == (2, 0, 0, 0)
    broker.store.redis.zadd(broker.store.key("parked_in", "q"), {"gone": 1})  # its time is over
    assert broker.levels(["q"])["q"].parked == 0


def test_what_others_wrote_hides_nothing(broker: Broker) -> None:
    """A message that is none has no age; a key of another type cannot be counted, and is no 0."""
    broker.publish([Publication("odd", "mail", "{", 4)])
    broker.store.redis.set(broker.store.key("delayed", "mail"), "x")
    assert level(broker) == QueueLevel(1, None, 0, 0, None)
