"""`PlainTask`: the base of functions, and of Celery's own tasks."""

from functools import partial
from typing import Any

import celery
from celery import uuid

from conventions.execution.unsent_step import UnsentStep
from conventions.sending.by_celery import checked
from conventions.sending.plain_send import checked_as_far
from conventions.sending.sent_or_refused import sent_or_refused

FUNCTION_REQUEST = "conventions.worker.function_request:FunctionRequest"
STRATEGY = "conventions.worker.strategy:strategy"


def is_celerys(task: object) -> bool:
    """Whether a task is one of Celery's own, such as `celery.chord_unlock`."""
    return type(task).__module__.startswith("celery.")


def hold_as_ours(task: Any) -> None:
    """Let the messages of a task whose base is Celery's be held by a worker as those of a function are. It keeps what its author has chosen."""
    if task.Request == celery.Task.Request:
        task.Request = FUNCTION_REQUEST
    if task.Strategy == celery.Task.Strategy:
        task.Strategy = STRATEGY


class PlainTask(celery.Task):
    """A Celery task outside our classes. A function keeps Celery's meaning; messages of Celery's own tasks are held and acknowledged like ours."""

    abstract = True
    Request = FUNCTION_REQUEST
    Strategy = STRATEGY

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__module__.startswith("celery."):
            cls.Request = "conventions.worker.request:PlainRequest"
            cls.acks_late = cls.reject_on_worker_lost = True

    def apply_async(self, args: Any = None, kwargs: Any = None, task_id: str | None = None, **options: Any) -> Any:
        """Celery's, with the actor of the running code. Raises: TypeError, ValueError, PayloadError for an unusable send."""
        task_id = options["task_id"] = uuid() if task_id is None else task_id
        if checked_as_far(self, args, kwargs, options) is None:
            return self.AsyncResult(task_id)
        celerys = super().apply_async
        with checked(task_id):
            sent = partial(celerys, args, kwargs, **options)
            step = partial(UnsentStep, self.app, self.name, task_id, args, kwargs, options, options["headers"])
            return sent_or_refused(sent, step, partial(self.AsyncResult, task_id))
