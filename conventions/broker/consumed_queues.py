"""Which queues the workers consume now. The workers are asked."""

from typing import Any, NamedTuple

from conventions.pauses.pause_store import Pauses
from conventions.storage.layout_version import living
from conventions.storage.redis_store import Store

ASK_WITHIN = 1.0  # seconds that workers have to answer


class Consumers(NamedTuple):
    """The answers of the workers.

    Attributes:
        queues: the queues that at least one worker consumes.
        silent: how many living workers have not answered.
        paused: queues that people have paused: no worker consumes them, which is meant.
    """

    queues: frozenset[str]
    silent: int
    paused: frozenset[str] = frozenset()

    @property
    def known(self) -> frozenset[str]:
        """The queues of which nobody need be told that no worker consumes them."""
        return self.queues | self.paused


def ask_workers(store: Store, control: Any) -> Consumers:
    """Ask the workers; `control` is Celery's. Raises: RedisError, or the transport's error when the broker cannot be reached."""
    alive = sum(name.startswith("worker ") for name in living(store))
    # With a limit the call returns as soon as all have answered.
    answers = control.inspect(timeout=ASK_WITHIN, limit=alive or None).active_queues() or {}
    queues = frozenset(queue["name"] for queues in answers.values() for queue in queues)
    return Consumers(queues, max(alive - len(answers), 0), Pauses(store).read().names("queue"))
