"""The backend, as `settings.TASKS` names it.

TASKS = {"default": {"BACKEND": "conventions.django_tasks.backend.ConventionsBackend"}}
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from celery import uuid
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import DEFAULT_TASK_QUEUE_NAME, Task, TaskResult
from django.tasks.exceptions import InvalidTask
from django.tasks.signals import task_enqueued
from django.utils import timezone

from conventions.core.error_text import NAME_LENGTH
from conventions.core.priority import Priority
from conventions.django_tasks.results import result_of, tell
from conventions.django_tasks.run_task import RunDjangoTask, is_task

ON_COMMIT: Final = "ON_COMMIT"
_BANDS = ((50, Priority.URGENT), (1, Priority.HIGH), (0, Priority.NORMAL))  # from this priority of Django on


class ConventionsBackend(BaseTaskBackend):
    """Sends each task as a job of `RunDjangoTask`.

    With `OPTIONS = {"ON_COMMIT": True}` a send is a row in Django's transaction, as by `delay_on_commit`: rolled back, it is never sent. An alias
    of `DATABASES` in place of `True` says in which one.

    Django's `get_result` wants the arguments of the task, which nobody keeps after a success. `conventions.Job.of(result.id)` says the rest.
    """

    is_conventions = True  # also of a class that is derived from it: a worker runs what it enqueues
    supports_defer = True
    supports_async_task = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        queues = params.get("QUEUES", [DEFAULT_TASK_QUEUE_NAME])
        names = queues if isinstance(queues, (list, tuple, set, frozenset)) else []
        if not names or not all(isinstance(one, str) and one and one == one.strip() for one in names):
            raise ImproperlyConfigured(
                f"TASKS[{alias!r}]: QUEUES is a list of the names of all queues, which workers consume, and not {queues!r}"
            )
        super().__init__(alias, params)
        if unknown := sorted(self.options.keys() - {ON_COMMIT}):
            raise ImproperlyConfigured(f"TASKS[{alias!r}]: there is no option {unknown[0]}; there is {ON_COMMIT}")
        self._on_commit: bool | str = self.options.get(ON_COMMIT, False)
        if isinstance(self._on_commit, str) and self._on_commit not in connections.settings:
            raise ImproperlyConfigured(f"TASKS[{alias!r}]: {ON_COMMIT}: DATABASES has no {self._on_commit!r}")

    def enqueue(self, task: "Task[Any, Any]", args: Sequence[Any], kwargs: Mapping[str, Any]) -> "TaskResult[Any, Any]":
        """Send it.

        Raises:
            InvalidTask: as Django's check of a task; or a worker could not find it by its path.
            TypeError, PayloadError: the arguments are no JSON, or too large.
            ValueError: `run_after` is beyond `CONVENTIONS_MAX_DELAY`.
            BrokerUnavailable: the broker did not take it in time.
        """
        self.validate_task(task)
        if not is_task(task.module_path):
            raise InvalidTask(
                f"{task.module_path} is no task where a worker looks for it: write @task over the function, in a module"
            )
        result = result_of(task, uuid(), args, kwargs, backend=self.alias, enqueued_at=timezone.now())
        options: dict[str, Any] = {
            "task_id": result.id,
            "shadow": task.module_path[:NAME_LENGTH],
            "priority": _band(task.priority),
        }
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
        tell(task_enqueued, type(self), result)
        return result


def _band(priority: int) -> Priority:
    """The band of a priority from -100 to 100."""
    return next((ours for least, ours in _BANDS if priority >= least), Priority.LOW)
