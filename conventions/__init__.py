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

from conventions.app import create_app
from conventions.batches.batch_task import BatchTask
from conventions.core.actor import acting_as
from conventions.core.chunking import chunked
from conventions.core.errors import (
    BrokerUnavailable,
    BusinessError,
    CannotOpen,
    CannotSeal,
    ConventionError,
    CredentialInPayload,
    IdempotencyConflict,
    LeaseLost,
    NotSearchable,
    PayloadError,
    PermissionDenied,
)
from conventions.core.priority import Priority
from conventions.core.settings import Settings
from conventions.declare.class_rules import EVERY_ARGUMENT
from conventions.declare.retry_policy import RetryPolicy
from conventions.jobs.job import Job
from conventions.permission.authorizer import Authorizer
from conventions.progress.reporter import Progress
from conventions.schedules.calendars import japanese_business_days
from conventions.schedules.cron import cron
from conventions.schedules.interval import every
from conventions.schedules.schedule import Schedule, planned_date, previous_day, week_of
from conventions.sending.steps import chain, chord, group
from conventions.tasks.base_classes import ConventionTask
from conventions.tasks.job_classes import ImmediateTask, LongRunningTask, ScheduledTask

__all__ = [
    "EVERY_ARGUMENT",
    "Authorizer",
    "BatchTask",
    "BrokerUnavailable",
    "BusinessError",
    "CannotOpen",
    "CannotSeal",
    "ConventionError",
    "ConventionTask",
    "CredentialInPayload",
    "IdempotencyConflict",
    "ImmediateTask",
    "Job",
    "LeaseLost",
    "LongRunningTask",
    "NotSearchable",
    "PayloadError",
    "PermissionDenied",
    "Priority",
    "Progress",
    "RetryPolicy",
    "Schedule",
    "ScheduledTask",
    "Settings",
    "acting_as",
    "chain",
    "chord",
    "chunked",
    "create_app",
    "cron",
    "every",
    "group",
    "japanese_business_days",
    "planned_date",
    "previous_day",
    "week_of",
]
