"""`PlainTask`: the base of functions, and of Celery's own tasks."""

from functools import partial
from typing import Any

import celery
from celery import uuid

from conventions.execution.unsent_step import UnsentStep
from conventions.sending.by_celery import checked
from conventions.sending.plain_send import checked_as_far
from conventions.sending.sent_or_refused import sent_or_refused


def is_celerys(name: str) -> bool:
    """Whether a task of this name is one of Celery's own, such as `celery.chord_unlock`."""
    return name.startswith("celery.")


class PlainTask(celery.Task):
    """A Celery task outside our classes. A function keeps Celery's meaning; messages of Celery's own tasks are held and acknowledged like ours."""

    abstract = True
    Request = "conventions.worker.function_request:FunctionRequest"
    Strategy = "conventions.worker.strategy:strategy"

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if is_celerys(vars(cls).get("name") or ""):
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
