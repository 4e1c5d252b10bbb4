"""The queues of RabbitMQ behind one queue of ours: one for each `Priority`.

A quorum queue knows two priorities only, so each of our four has a queue of its own. What RabbitMQ calls them:

- `reports` has the messages with `NORMAL`, and those of other programs;
- `reports:urgent`, `reports:high` and `reports:low` have the others.
"""

from typing import Any

from conventions.core.priority import Priority

ENDINGS = {Priority.URGENT: ":urgent", Priority.HIGH: ":high", Priority.NORMAL: "", Priority.LOW: ":low"}


def queues_of(queue: str) -> list[str]:
    """RabbitMQ's queues behind one of ours, the most urgent first."""
    return [queue + ending for ending in ENDINGS.values()]


def queue_for(queue: str, priority: Any) -> str:
    """The one for a priority, which may be any number of another program: 0 to 9, 9 first."""
    number = priority if isinstance(priority, int) else Priority.NORMAL
    named = next((one for one in ENDINGS if number >= one), Priority.LOW)
    return queue + ENDINGS[named]
