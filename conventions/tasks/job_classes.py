"""The three classes of job (R1): immediate, scheduled, long-running."""

from typing import Any, ClassVar

from conventions.declare.declaration import PLANNED_TIME
from conventions.tasks.base_classes import ConventionTask


class ImmediateTask(ConventionTask, abstract=True):
    """One clear thing, done within a minute: an e-mail, a notification, a picture (R5).

    Asked to stop after `soft_time_limit` (60 s), stopped after `time_limit` (90 s). Jobs that run longer than the setting
    `split_after` (60 s) are counted, and listed by `celery batch candidates`.
    """

    queue_name = "immediate"

    @property
    def split_after(self) -> float | None:
        """Seconds after which a job is one that should be split."""
        limit: float = self.app.settings.split_after
        return limit


class ScheduledTask(ConventionTask, abstract=True):
    """Work that a schedule starts: a report, a clean-up, a backup.

    Idempotent on its planned time; sent by hand, each message is a job of its own.
    """

    queue_name = "scheduled"
    idempotent_on: ClassVar[Any] = PLANNED_TIME
    limit_settings = ("long_soft_time_limit", "long_time_limit")


class LongRunningTask(ConventionTask, abstract=True):
    """Work that takes minutes or hours and reports its progress.

    Attributes:
        stall_after: seconds without progress after which it is taken for hung and runs elsewhere; default: the
            setting `stall_after`.
    """

    queue_name = "long"
    fast_lane = False
    stall_after: ClassVar[float | None] = None
    limit_settings = ("long_soft_time_limit", "long_time_limit")

    @property
    def hangs_after(self) -> float:
        """Seconds after the last progress, or the start, after which it is hung."""
        return self.stalls_after


def long_queues(app: Any) -> frozenset[str]:
    """The queues of the jobs of an application that take long: `long`, and what its long-running tasks have of their own."""
    own = {task.queue_name for task in app.tasks.values() if isinstance(task, LongRunningTask)}
    return frozenset({LongRunningTask.queue_name} | own - {ImmediateTask.queue_name, ScheduledTask.queue_name})
