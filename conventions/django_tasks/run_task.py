"""The job that runs what `@task` functions of Django enqueue. It finds the function by its path, so a worker need not import it before."""

import sys
from typing import Any

from django.apps import apps
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
from conventions.django_tasks.results import change, result_of, tell
from conventions.tasks.job_classes import ImmediateTask


class RunDjangoTask(ImmediateTask):
    """Run an enqueued task of Django: once for each time that it was enqueued, and again where its worker was killed."""

    name = "conventions.django_task"
    not_idempotent = "each is a message of its own: a function may be enqueued twice with the same arguments"
    retry_policy = RetryPolicy(attempts=1, network_attempts=1)  # nobody has said that it may run again after an error

    @property
    def further_queues(self) -> tuple[str, ...]:
        """Queues that workers consume beside its own. Raises: ConfigurationError: the settings have a fault."""
        return queues_of_tasks()

    def run(self, task: str, args: list[Any], kwargs: dict[str, Any], backend: str) -> Any:
        """Call the function. Its errors end the job: a dead letter, which can be sent again."""
        _refuse_foreign(task)
        found: Any = import_string(task)
        if not isinstance(found, Task):
            raise BusinessError(f"{task} is no task of Django")
        sender, now = type(task_backends[backend]), timezone.now()
        result = result_of(found, self.job.id, args, kwargs, backend=backend)
        result.worker_ids.extend([str(self.request.hostname)] * self.attempt)
        change(result, status=TaskResultStatus.RUNNING, started_at=now, last_attempted_at=now)
        tell(task_started, sender, result)
        context: list[Any] = [TaskContext(task_result=result)] if found.takes_context else []
        try:
            value = normalize_json(found.call(*context, *args, **kwargs))
        except BaseException as error:
            kind = f"{type(error).__module__}.{type(error).__qualname__}"
            result.errors.append(TaskError(exception_class_path=kind, traceback=describe(None, error).traceback))
            change(result, status=TaskResultStatus.FAILED, finished_at=timezone.now())
            tell(task_finished, sender, result)
            raise
        change(result, status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now(), _return_value=value)
        tell(task_finished, sender, result)
        return value


def is_task(path: str) -> bool:
    """Whether a worker finds a task of Django by this path; what is in a script is in none of a worker."""
    try:
        return not path.startswith("__main__.") and isinstance(import_string(path), Task)
    except ImportError:
        return False


def _refuse_foreign(path: str) -> None:
    """A message may name any module, and to import one runs it. Raises: BusinessError: it is none of the project's."""
    module = path.rpartition(".")[0]
    installed = any(f"{path}.".startswith(f"{one.name}.") for one in apps.get_app_configs())
    if not installed and module not in sys.modules:
        raise BusinessError(
            f"{path}: its module is in no application of INSTALLED_APPS, and this worker has not imported it"
        )
