"""The tasks and queues of an application: they say 0 before anything was counted of them."""

from conventions.execution.application import Application
from conventions.metrics.series import Series

OF_CELERY = "celery."  # Celery's own tasks begin with it; their jobs are functions, which are not counted


def known_series(app: Application) -> list[Series]:
    """Each task of ours that is registered, with its queue."""
    found = [(name, task) for name, task in app.tasks.items() if not name.startswith(OF_CELERY)]
    return sorted(Series(name, task.queue_name) for name, task in found if getattr(task, "queue_name", None))


def known_names(app: Application) -> list[str]:
    """The queues that workers of this application consume unless they are told others."""
    celerys = {str(getattr(one, "name", one)) for one in app.conf.task_queues or (app.conf.task_default_queue,)}
    return sorted({series.queue for series in known_series(app)} | celerys)
