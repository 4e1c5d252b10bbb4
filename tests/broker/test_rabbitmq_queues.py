"""Where a message goes in RabbitMQ."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions import Priority
from conventions.broker.rabbitmq_queues import (
    LONGEST_DELAY,
    Place,
    delay_exchange,
    due_binding,
    place_for,
    queue_for,
    queues_of,
    seconds_until,
)

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
BITS = 28


def delay_of(place: Place) -> int:
    """How long the levels of a routing key let a message wait, in seconds."""
    return int("".join(place.routing_key.split(".")[:BITS]), 2)


@pytest.mark.parametrize(
    ("priority", "ending"),
    [
        (Priority.URGENT, ":urgent"),
        (Priority.HIGH, ":high"),
        (Priority.NORMAL, ""),
        (Priority.LOW, ":low"),
        (0, ":low"),
        (5, ""),
        (8, ":high"),
        (255, ":urgent"),
        (None, ""),
        ("high", ""),
    ],
)
def test_each_priority_has_a_queue(priority: Any, ending: str) -> None:
    """A number of another program means the named one below it; without one it is `NORMAL`."""
    assert queue_for("reports", priority) == f"reports{ending}"


def test_the_most_urgent_queue_is_the_first() -> None:
    """In the order of the priorities."""
    assert queues_of("reports") == [queue_for("reports", priority) for priority in sorted(Priority, reverse=True)]


@given(seconds=st.floats(min_value=0.001, max_value=LONGEST_DELAY - 1), queue=st.from_regex(r"\A[a-z][a-z.:]{0,30}\Z"))
def test_a_delay_is_never_too_short(seconds: float, queue: str) -> None:
    """It is at most a second longer, and the message reaches its own queue."""
    due = NOW + timedelta(seconds=seconds)
    place = place_for(queue, Priority.HIGH, due.isoformat(), "shop", NOW)
    assert place.exchange == delay_exchange("shop") == "shop_celery_delayed_27"
    assert 0 <= delay_of(place) - (due - NOW).total_seconds() < 1
    assert binds(due_binding(f"{queue}:high"), place.routing_key)


@pytest.mark.parametrize("eta", [None, "", NOW.isoformat(), (NOW - timedelta(days=1)).isoformat(), "soon", 7])
def test_what_is_due_goes_to_its_queue(eta: Any) -> None:
    """Also what does not say a time: a worker refuses it."""
    assert place_for("reports", Priority.LOW, eta, "shop", NOW) == Place("", "reports:low")


def test_a_time_without_a_zone_is_utc() -> None:
    """As Celery reads it."""
    assert seconds_until("2026-07-01T12:00:30", NOW) == 30


def test_a_queue_whose_name_ends_like_another() -> None:
    """Each gets its own messages only."""
    key = place_for("b.reports", Priority.NORMAL, (NOW + timedelta(seconds=9)).isoformat(), "shop", NOW).routing_key
    assert binds(due_binding("b.reports"), key)
    assert not binds(due_binding("reports"), key)


def binds(binding: str, key: str) -> bool:
    """Whether a topic exchange sends a message with this key by this binding; it has no `#`."""
    words, parts = binding.split("."), key.split(".")
    return len(words) == len(parts) and all(word in ("*", part) for word, part in zip(words, parts, strict=True))
