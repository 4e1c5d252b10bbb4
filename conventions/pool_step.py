"""`PoolStep`: lets the pool see soon that one of its processes has ended."""

from typing import Any

from celery import bootsteps

LOOK_EVERY = 0.5  # seconds


class PoolStep(bootsteps.StartStopStep):
    """Asks more often than Celery, which looks every five seconds where it has missed the end of a process.

    It is told of the end when the last file of the process is closed, which may be before the system can say that it has ended.
    """

    requires = ("celery.worker.components:Pool",)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """As above."""
        hub.call_repeatedly(LOOK_EVERY, worker.pool.maintain_pool)
