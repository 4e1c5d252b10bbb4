"""What jobs log is collected, beside the handlers that a worker has."""

from typing import Any

from celery import bootsteps

from conventions.attempt_log.run_log import attach


class LogStep(bootsteps.Step):
    """Before the pool forks, and after Celery, or the team, has set up the log."""

    def create(self, worker: Any) -> None:
        """Collect from the worker's level on."""
        if worker.app.attempt_logs is not None:
            attach(_level_of(worker.loglevel))


def _level_of(level: Any) -> int:
    return level if isinstance(level, int) else 0
