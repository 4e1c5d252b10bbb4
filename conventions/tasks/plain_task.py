"""`PlainTask`: the base of functions, and of Celery's own tasks."""

from functools import partial
from typing import Any

import celery
from celery import uuid

from conventions.core.errors import DeclarationError
from conventions.execution.unsent_step import UnsentStep
from conventions.library_internals.celery import current_task
from conventions.sending.by_celery import checked
from conventions.sending.option_checks import CONNECTIONS
from conventions.sending.plain_send import checked_as_far
from conventions.sending.refused_sends import telling_refusals
from conventions.sending.sent_or_refused import sent_or_refused

FUNCTION_REQUEST = "conventions.worker.function_request:FunctionRequest"
STRATEGY = "conventions.worker.strategy:strategy"


def is_celerys(task: object) -> bool:
    """Whether a task is one of Celery's own, such as `celery.chord_unlock`."""
    return type(task).__module__.startswith("celery.")


def hold_as_ours(task: Any) -> None:
    """Let the messages of a task whose base is Celery's be held by a worker as those of a function are. It keeps what its author has chosen.

    Raises:
        DeclarationError: it says `requires`, for which nobody would ask.
    """
    if getattr(task, "requires", None) is not None and not hasattr(task, "arguments"):
        raise DeclarationError(
            f"{task.name}: requires has no effect on a task of Celery, which asks nobody: derive it from ImmediateTask, or write @app.job(requires=...)"
        )
    if task.Request == celery.Task.Request:
        task.Request = FUNCTION_REQUEST
    if task.Strategy == celery.Task.Strategy:
        task.Strategy = STRATEGY


def elsewhere_of(task: Any, task_id: str) -> Any:
    """The same function in the application of the project around a worker of ours; `None`: it is sent by ours.

    `@shared_task` sends by Celery's current application. A worker makes its own the current one, so a job of ours that calls `function.delay()`
    would send it elsewhere than a web server does. Functions in the packages of our application are ours.
    """
    around = task.app.around
    if around is None or task.app.holds(task.__module__):
        return None
    running = current_task()
    if running is not None and running.request.id == task_id and not getattr(running, "counts_itself", False):
        return None  # Celery's retry of a message that we have, or what replaces it
    return around.tasks.get(task.name)


def without_connection(elsewhere: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a send by another application. Raises: TypeError: it is a part of a chord, whose end nobody would count there."""
    if options.get("chord"):
        raise TypeError(
            f"{elsewhere.name}: a chord cannot be sent from a job of ours, since the function belongs to {elsewhere.app.main!r}: send it by "
            "that application's own task, or move the functions"
        )
    return {name: value for name, value in options.items() if name not in CONNECTIONS}


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
        if (elsewhere := elsewhere_of(self, task_id)) is not None:
            return elsewhere.apply_async(args, kwargs, **without_connection(elsewhere, options))
        with telling_refusals(self.app, self.name, dict(options)):
            accepted = checked_as_far(self, args, kwargs, options)
        if accepted is None:
            return self.AsyncResult(task_id)
        celerys = super().apply_async
        with checked(task_id):
            sent = partial(celerys, args, kwargs, **options)
            step = partial(UnsentStep, self.app, self.name, task_id, args, kwargs, options, options["headers"])
            return sent_or_refused(sent, step, partial(self.AsyncResult, task_id))
