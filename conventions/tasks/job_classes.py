"""The three classes of job (R1): immediate, scheduled, long-running."""

from typing import ClassVar

from conventions.declare.class_rules import PLANNED_TIME, IdempotentOn
from conventions.execution.application import Application
from conventions.tasks.base_classes import ConventionTask


class ImmediateTask(ConventionTask, abstract=True):
    """One clear thing, done within a minute: an e-mail, a notification, a picture (R5).

    It is asked to stop after `soft_time_limit` (60 s) and stopped after `time_limit` (90 s). Jobs longer than the
    setting `split_after` (60 s) are counted, and listed by `celery batch candidates`.
    """

    queue_name = "immediate"

    @property
    def split_after(self) -> float | None:
        """Seconds; a longer job should be split."""
        limit: float = self.app.settings.split_after
        return limit


class ScheduledTask(ConventionTask, abstract=True):
    """Work that a schedule starts: a report, a clean-up, a backup.

    It is idempotent on its planned time. Sent by hand, each message is a job of its own.
    """

    queue_name = "scheduled"
    idempotent_on: ClassVar[IdempotentOn] = PLANNED_TIME
    limit_settings = ("long_soft_time_limit", "long_time_limit")


class LongRunningTask(ConventionTask, abstract=True):
    """Work that takes minutes or hours and reports its progress.

    Attributes:
        stall_after: seconds without progress after which the job counts as hung and runs elsewhere; default: the
            setting `stall_after`.
    """

    queue_name = "long"
    fast_lane = False
    stall_after: ClassVar[float | None] = None
    limit_settings = ("long_soft_time_limit", "long_time_limit")

    @property
    def hangs_after(self) -> float:
        """Seconds without progress after which the job counts as hung."""
        return self.stalls_after


def long_queues(app: Application) -> frozenset[str]:
    """The queues of an application's long jobs: `long`, and the own queues of its long-running tasks."""
    own = {task.queue_name for task in app.tasks.values() if isinstance(task, LongRunningTask)}
    return frozenset({LongRunningTask.queue_name} | own - {ImmediateTask.queue_name, ScheduledTask.queue_name})
