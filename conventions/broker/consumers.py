"""Which queues workers consume just now, asked of the workers."""

from typing import Any, NamedTuple

from conventions.storage.layout_version import living

ASK_WITHIN = 1.0  # seconds that workers have to answer


class Consumers(NamedTuple):
    """What workers have answered.

    Attributes:
        queues: those that one of them consumes.
        silent: how many live, and have not answered.
    """

    queues: frozenset[str]
    silent: int


def ask_workers(app: Any) -> Consumers:
    """Ask them. Raises: RedisError, or what the transport raises when the broker cannot be reached."""
    alive = sum(name.startswith("worker ") for name in living(app.store))
    # With a limit it ends when all have answered.
    answers = app.control.inspect(timeout=ASK_WITHIN, limit=alive or None).active_queues() or {}
    queues = frozenset(queue["name"] for queues in answers.values() for queue in queues)
    return Consumers(queues, max(alive - len(answers), 0))
