"""How long a claim, and the result in it, is remembered."""

from datetime import timedelta

from conventions.execution.declared_task import DeclaredTask

REDRIVE_WINDOW = timedelta(days=1)  # within which a redrive finds what is remembered of the first run


def horizon_of(task: DeclaredTask) -> timedelta:
    """How long a task's claims are remembered: its longest delay, retries and redrive, and at least what is set."""
    settings = task.app.settings
    return max(settings.keep_result_for, settings.max_delay + task.retry_policy.window + REDRIVE_WINDOW)
