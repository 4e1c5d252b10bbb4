"""Celery's result backend, which also knows of jobs that report progress: their state is `PROGRESS` (R11).

Nothing is written for it: where Celery has no result yet, the progress is read. Its fields have our names, and those that
tools such as celery-progress read. After the end the state is Celery's own: that of the result, where one is kept.
"""

from typing import Any

from celery import states
from celery.backends.redis import RedisBackend, SentinelBackend

from conventions.progress import Progress

PROGRESS = "PROGRESS"


class _ReadsProgress:
    """Falls back to the progress of a job that has not ended."""

    app: Any

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:
        """The state of a task, as Celery keeps it."""
        meta: dict[str, Any] = super().get_task_meta(task_id, cache=cache)  # type: ignore[misc]  # of the classes below
        if meta["status"] != states.PENDING:
            return meta
        progress = Progress.of(task_id, self.app.store)
        if not progress.started_at or progress.ended:
            return meta
        return meta | {"status": PROGRESS, "result": described(progress)}


def described(progress: Progress) -> dict[str, Any]:
    """A reading as JSON; `current` and `description` are the names of celery-progress."""
    names = ("done", "failed", "total", "percent", "note", "rate", "eta", "stalled")
    fields = {name: getattr(progress, name) for name in names}
    return fields | {"current": progress.done, "description": progress.note}


class Backend(_ReadsProgress, RedisBackend):
    """Results in Redis."""


class SentinelResults(_ReadsProgress, SentinelBackend):
    """The same, on the master that Sentinel names."""
