"""`LaneStep`: brings the lane into the worker's loop."""

from typing import Any

from celery import bootsteps


class LaneStep(bootsteps.StartStopStep):
    """A step of Celery's worker."""

    requires = ("celery.worker.components:Hub",)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """As above."""
        worker.app.lane.register_with_event_loop(hub)
