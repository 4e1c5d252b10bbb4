"""What a worker does for its broker beside its jobs, from its start to its end."""

from typing import Any

from celery import bootsteps


class BrokerStep(bootsteps.StartStopStep):
    """A step of Celery's worker; `BrokerPort` says what there is to do."""

    requires = ("celery.worker.components:Hub",)

    def start(self, worker: Any) -> None:
        """Begin."""
        worker.app.port.start()

    def stop(self, worker: Any) -> None:
        """End."""
        worker.app.port.stop()
