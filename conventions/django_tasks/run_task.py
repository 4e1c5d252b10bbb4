"""The job that runs what `@task` functions of Django enqueue. It finds the function by its path, so a worker need not import it before."""

from typing import Any, ClassVar

from django.tasks import task_backends
from django.tasks.base import Task, TaskContext, TaskError, TaskResultStatus
from django.tasks.signals import task_finished, task_started
from django.utils import timezone
from django.utils.json import normalize_json
from django.utils.module_loading import import_string

from conventions.core.error_text import describe
from conventions.core.errors import BusinessError
from conventions.declare.retry_policy import RetryPolicy
from conventions.django.project_settings import queues_of_tasks
from conventions.django_tasks.results import change, result_of
from conventions.tasks.job_classes import ImmediateTask


class RunDjangoTask(ImmediateTask):
    """Run an enqueued task of Django: once for each time that it was enqueued, and again where its worker was killed."""

    name = "conventions.django_task"
    not_idempotent = "each is a message of its own: a function may be enqueued twice with the same arguments"
    retry_policy = RetryPolicy(attempts=1, network_attempts=1)  # nobody has said that it may run again after an error
    further_queues: ClassVar[tuple[str, ...]] = queues_of_tasks()

    def run(self, task: str, args: list[Any], kwargs: dict[str, Any], backend: str) -> Any:
        """Call the function. Its errors end the job: a dead letter, which can be sent again."""
        found: Any = import_string(task)
        if not isinstance(found, Task):
            raise BusinessError(f"{task} is no task of Django")
        sender, now = type(task_backends[backend]), timezone.now()
        result = result_of(found, self.job.id, args, kwargs, backend=backend)
        result.worker_ids.extend([str(self.request.hostname)] * self.attempt)
        change(result, status=TaskResultStatus.RUNNING, started_at=now, last_attempted_at=now)
        task_started.send(sender, task_result=result)
        context: list[Any] = [TaskContext(task_result=result)] if found.takes_context else []
        try:
            value = normalize_json(found.call(*context, *args, **kwargs))
        except Exception as error:
            kind = f"{type(error).__module__}.{type(error).__qualname__}"
            result.errors.append(TaskError(exception_class_path=kind, traceback=describe(None, error).traceback))
            change(result, status=TaskResultStatus.FAILED, finished_at=timezone.now())
            task_finished.send(sender, task_result=result)
            raise
        change(result, status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now(), _return_value=value)
        task_finished.send(sender, task_result=result)
        return value
