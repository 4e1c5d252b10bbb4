"""Where a message goes in RabbitMQ."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions import Priority
from conventions.broker.rabbitmq_delays_in_redis import seconds_until
from conventions.broker.rabbitmq_priorities import queue_for, queues_of

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


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


@given(seconds=st.floats(min_value=0.001, max_value=1e8))
def test_seconds_until_it_is_due(seconds: float) -> None:
    """To the microsecond, in any zone."""
    due = NOW + timedelta(seconds=seconds)
    assert seconds_until(due.astimezone(timezone(timedelta(hours=9))).isoformat(), NOW) == pytest.approx(
        seconds, abs=2e-6
    )


@pytest.mark.parametrize("eta", [None, "", NOW.isoformat(), (NOW - timedelta(days=1)).isoformat(), "soon", 7])
def test_what_is_due(eta: Any) -> None:
    """Also what does not say a time: a worker refuses it."""
    assert seconds_until(eta, NOW) == 0


def test_a_time_without_a_zone_is_utc() -> None:
    """As Celery reads it."""
    assert seconds_until("2026-07-01T12:00:30", NOW) == 30
