"""The backend, as `settings.TASKS` names it.

TASKS = {"default": {"BACKEND": "conventions.django_tasks.backend.ConventionsBackend"}}
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from celery import uuid
from django.core.exceptions import ImproperlyConfigured
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import DEFAULT_TASK_QUEUE_NAME, Task, TaskResult
from django.tasks.signals import task_enqueued
from django.utils import timezone

from conventions.core.priority import Priority
from conventions.django_tasks.results import result_of
from conventions.django_tasks.run_task import RunDjangoTask

ON_COMMIT: Final = "ON_COMMIT"
_BANDS = ((50, Priority.URGENT), (1, Priority.HIGH), (0, Priority.NORMAL))  # from this priority of Django on


class ConventionsBackend(BaseTaskBackend):
    """Sends each task as a job of `RunDjangoTask`.

    With `OPTIONS = {"ON_COMMIT": True}` a send is a row in Django's transaction, as by `delay_on_commit`: rolled back, it is never sent. An alias
    of `DATABASES` in place of `True` says in which one.

    Django's `get_result` wants the arguments of the task, which nobody keeps after a success. `conventions.Job.of(result.id)` says the rest.
    """

    supports_defer = True
    supports_async_task = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        if unknown := sorted(self.options.keys() - {ON_COMMIT}):
            raise ImproperlyConfigured(f"TASKS[{alias!r}]: there is no option {unknown[0]}; there is {ON_COMMIT}")
        self._on_commit: bool | str = self.options.get(ON_COMMIT, False)

    def enqueue(self, task: "Task[Any, Any]", args: Sequence[Any], kwargs: Mapping[str, Any]) -> "TaskResult[Any, Any]":
        """Send it.

        Raises:
            InvalidTask: as Django's check of a task.
            TypeError, PayloadError: the arguments are no JSON, or too large.
            ValueError: `run_after` is beyond `CONVENTIONS_MAX_DELAY`.
            BrokerUnavailable: the broker did not take it in time.
        """
        self.validate_task(task)
        result = result_of(task, uuid(), args, kwargs, backend=self.alias, enqueued_at=timezone.now())
        options: dict[str, Any] = {"task_id": result.id, "shadow": task.module_path, "priority": _band(task.priority)}
        if task.queue_name != DEFAULT_TASK_QUEUE_NAME:
            options["queue"] = task.queue_name
        if task.run_after is not None:
            naive = timezone.is_naive(task.run_after)
            options["eta"] = timezone.make_aware(task.run_after) if naive else task.run_after
        if isinstance(self._on_commit, str):
            options["using"] = self._on_commit
        send = RunDjangoTask.options(**options)
        enqueue = send.delay_on_commit if self._on_commit else send.delay
        enqueue(task=task.module_path, args=result.args, kwargs=result.kwargs, backend=self.alias)
        task_enqueued.send(type(self), task_result=result)
        return result


def _band(priority: int) -> Priority:
    """The band of a priority from -100 to 100."""
    return next((ours for least, ours in _BANDS if priority >= least), Priority.LOW)
