"""Background-job conventions that hold by themselves: subclass a task, run `celery worker`.

>>> from conventions import ImmediateTask
>>> class Greet(ImmediateTask):
...     '''Greet one user.'''
...
...     idempotent_on = ("user_id",)
...
...     def run(self, user_id: int) -> str:
...         return f"hello {user_id}"
"""

from conventions.actor import acting_as
from conventions.app import create_app
from conventions.batch_task import BatchTask
from conventions.calendars import japanese_business_days
from conventions.chunking import chunked
from conventions.cron import cron, every
from conventions.declaration import EVERY_ARGUMENT
from conventions.errors import (
    BrokerUnavailable,
    BusinessError,
    ConventionError,
    CredentialInPayload,
    IdempotencyConflict,
    LeaseLost,
    PayloadError,
    PermissionDenied,
)
from conventions.job_classes import ImmediateTask, LongRunningTask, ScheduledTask
from conventions.priority import Priority
from conventions.progress import Progress
from conventions.retry import RetryPolicy
from conventions.schedule import Schedule, planned_date, previous_day, week_of
from conventions.settings import Settings
from conventions.task import ConventionTask

__all__ = [
    "EVERY_ARGUMENT",
    "BatchTask",
    "BrokerUnavailable",
    "BusinessError",
    "ConventionError",
    "ConventionTask",
    "CredentialInPayload",
    "IdempotencyConflict",
    "ImmediateTask",
    "LeaseLost",
    "LongRunningTask",
    "PayloadError",
    "PermissionDenied",
    "Priority",
    "Progress",
    "RetryPolicy",
    "Schedule",
    "ScheduledTask",
    "Settings",
    "acting_as",
    "chunked",
    "create_app",
    "cron",
    "every",
    "japanese_business_days",
    "planned_date",
    "previous_day",
    "week_of",
]
