"""The queues of RabbitMQ behind one queue of ours: one for each `Priority`, and those in which messages wait until they are due.

A quorum queue knows two priorities only, so each of our four has a queue of its own. What RabbitMQ calls them:

- `reports` has the messages with `NORMAL`, and those of other programs;
- `reports:urgent`, `reports:high` and `reports:low` have the others;
- `<key prefix>_celery_delayed_0` to `…_27` have what is not due, of all queues of an application (kombu's native delayed delivery).
"""

import math
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from kombu.transport.native_delayed_delivery import (
    CELERY_DELAYED_DELIVERY_EXCHANGE,
    MAX_NUMBER_OF_BITS_TO_USE,
    calculate_routing_key,
    level_name,
)

from conventions.core.priority import Priority

ENDINGS = {Priority.URGENT: ":urgent", Priority.HIGH: ":high", Priority.NORMAL: "", Priority.LOW: ":low"}
YEAR = 365 * 24 * 3600 * 1000  # milliseconds
ARGUMENTS = MappingProxyType(
    {
        "x-queue-type": "quorum",
        "x-delivery-limit": -1,  # how often a message may begin is `start_limit`; this one would drop it without a letter
        "x-consumer-timeout": YEAR,  # no job is longer; RabbitMQ would take a message back after half an hour
    }
)
QUEUE_NAME_LIMIT = 255 - 2 * MAX_NUMBER_OF_BITS_TO_USE - len(":urgent")  # bytes: a routing key has 255
LONGEST_DELAY = 2**MAX_NUMBER_OF_BITS_TO_USE - 1  # seconds


class Place(NamedTuple):
    """Where a message is published."""

    exchange: str
    routing_key: str


def queues_of(queue: str) -> list[str]:
    """RabbitMQ's queues behind one of ours, the most urgent first."""
    return [queue + ending for ending in ENDINGS.values()]


def queue_for(queue: str, priority: Any) -> str:
    """The one for a priority, which may be any number of another program: 0 to 9, 9 first."""
    number = priority if isinstance(priority, int) else Priority.NORMAL
    named = next((one for one in ENDINGS if number >= one), Priority.LOW)
    return queue + ENDINGS[named]


def delay_exchange(prefix: str) -> str:
    """Where messages are published that are not due."""
    return str(level_name(MAX_NUMBER_OF_BITS_TO_USE - 1, prefix))


def due_exchange(prefix: str) -> str:
    """Where messages come from that have become due."""
    return f"{prefix}_{CELERY_DELAYED_DELIVERY_EXCHANGE}"


def due_binding(queue: str) -> str:
    """The binding by which one of RabbitMQ's queues gets what becomes due. Another queue's name may end like this one's."""
    return "*." * MAX_NUMBER_OF_BITS_TO_USE + queue


def place_for(queue: str, priority: Any, eta: str | None, prefix: str, now: datetime | None = None) -> Place:
    """Where a message goes.

    RabbitMQ delays by whole seconds, so that a message is due up to a second later than asked for.

    Args:
        queue: the name that our settings use.
        priority: of the message.
        eta: when it is due, in ISO 8601, or `None`: now.
        prefix: of the application.
        now: aware; for tests.
    """
    name = queue_for(queue, priority)
    wait = min(math.ceil(seconds_until(eta, now)), LONGEST_DELAY)
    if wait < 1:
        return Place("", name)
    return Place(delay_exchange(prefix), str(calculate_routing_key(wait, name)))


def seconds_until(eta: Any, now: datetime | None = None) -> float:
    """Seconds until a message is due; 0 if it does not say when."""
    now = now or datetime.now(UTC)
    try:
        due = datetime.fromisoformat(eta) if eta else now
    except (TypeError, ValueError):  # another program wrote it, and a worker refuses it
        return 0.0
    return (due if due.tzinfo else due.replace(tzinfo=UTC)).timestamp() - now.timestamp()
