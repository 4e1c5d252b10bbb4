"""The lengths of our queues for Flower. Flower itself counts kombu's lists, and our queues are sorted sets."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

from conventions.execution.application import Application
from conventions.execution.purge_queues import known_queues
from conventions.transport.celery_defaults import CLASS_QUEUES

ANSWER_WITHIN = 1.0  # seconds that workers have to answer


class FlowerQueues:
    """Replaces Flower's `Broker`.

    Args:
        app: the application.
        alive: the names of the running workers that Flower knows.
    """

    def __init__(self, app: Application, alive: Iterable[str]) -> None:
        self._app = app
        self._alive = frozenset(alive)

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """These queues, the queues of the classes of job, and every queue with messages. Raises: RedisError."""
        return await asyncio.to_thread(self._look, frozenset(names))

    def _look(self, names: frozenset[str]) -> list[dict[str, Any]]:
        consumers, is_whole = self._consumers()
        always = names.union(CLASS_QUEUES, consumers)
        found = []
        for name in sorted(always.union(known_queues(self._app))):
            sizes = self._app.broker.sizes(name)
            total = sizes.ready + sizes.delayed + sizes.in_flight
            if not total and name not in always:
                continue
            queue = {
                "name": name,
                "messages": total,
                "messages_ready": sizes.ready,
                "messages_unacknowledged": sizes.in_flight,
            }
            if consumers[name] or is_whole:  # 0 is certain only if every worker has answered
                queue["consumers"] = consumers[name]
            found.append(queue)
        return found

    def _consumers(self) -> tuple[Counter[str], bool]:
        """How many workers consume each queue, and whether every worker that Flower knows has answered."""
        answers = self._app.control.inspect(timeout=ANSWER_WITHIN).active_queues() or {}
        found = Counter(str(queue["name"]) for queues in answers.values() for queue in queues)
        return found, bool(answers) and self._alive <= answers.keys()
