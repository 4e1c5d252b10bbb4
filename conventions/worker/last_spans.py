"""The last spans of a process of the pool: it ends without the functions that Python calls at the end of others."""

from typing import Any

from celery import bootsteps, signals

from conventions.tracing.door import is_used, send_last_spans


class LastSpansStep(bootsteps.Step):
    """Lets each process of the pool send them, also where its provider was set after the fork."""

    requires = ("celery.worker.components:Pool",)

    def create(self, worker: Any) -> None:
        """Listen, before the pool forks. A worker without OpenTelemetry does not: its idle processes end faster."""
        if worker.app.settings.tracing and is_used():
            signals.worker_process_shutdown.connect(send_last_spans, weak=False)
