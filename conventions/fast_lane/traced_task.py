"""`TracedTask`: what the lane uses of a task to call its jobs in place of Celery's tracer."""

from typing import Any, Protocol

from conventions.execution.runnable_task import RunnableTask


class TracedTask(RunnableTask, Protocol):
    """A runnable task with what Celery's tracer uses of it. All of this is Celery's."""

    @property
    def resultrepr_maxsize(self) -> int:
        """Characters of a result in logs."""

    @property
    def track_started(self) -> bool:
        """Whether a result says that its job has begun."""

    @property
    def __trace__(self) -> Any:
        """Its tracer: Celery's, or that of an observer."""

    def __hash__(self) -> int:
        """It is a key: whether somebody observes it is looked up once."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the job of the request on top of the stack."""
