"""Celery's result backend, which also knows of jobs that report progress: their state is `PROGRESS` (R11).

Nothing is written for it: where Celery has no result, the progress is read. Its fields have our names, and those that tools
such as celery-progress read. Where nobody keeps the result, the progress also says how the job, or the batch, has ended.
"""

from typing import Any

from celery import states
from celery.backends.redis import RedisBackend, SentinelBackend

from conventions.errors import JobCancelled, JobFailed
from conventions.progress import Progress

PROGRESS = "PROGRESS"


class _ReadsProgress:
    """Falls back to the progress of a job of which there is no result."""

    app: Any

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:
        """The state of a task, as Celery keeps it."""
        meta: dict[str, Any] = super().get_task_meta(task_id, cache=cache)  # type: ignore[misc]  # of the classes below
        if meta["status"] != states.PENDING:
            return meta
        progress = Progress.of(task_id, self.app.store)
        if not progress.started_at:
            return meta
        return meta | {"task_id": task_id, "traceback": None, "children": []} | _state_of(progress)


def _state_of(progress: Progress) -> dict[str, Any]:
    match progress.ended if progress.ignored else "":  # a result that is kept comes in a moment
        case "done":
            return {"status": states.SUCCESS, "result": None}
        case "dead":
            return {"status": states.FAILURE, "result": JobFailed(f"{progress.id}: its dead letter says how")}
        case "cancelled":
            return {"status": states.REVOKED, "result": JobCancelled(f"{progress.id} was cancelled")}
        case _:
            return {"status": PROGRESS, "result": described(progress)}


def described(progress: Progress) -> dict[str, Any]:
    """A reading as JSON; `current` and `description` are the names of celery-progress."""
    names = ("done", "failed", "total", "percent", "note", "rate", "eta", "stalled")
    fields = {name: getattr(progress, name) for name in names}
    return fields | {"current": progress.done, "description": progress.note}


class Backend(_ReadsProgress, RedisBackend):
    """Results in Redis."""


class SentinelResults(_ReadsProgress, SentinelBackend):
    """The same, on the master that Sentinel names."""
