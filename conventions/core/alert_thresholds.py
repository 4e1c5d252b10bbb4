"""`Thresholds`: from which values on something is wrong; those of the document, and those of this platform (R14)."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]


class QueueThresholds(BaseModel):
    """Those of one queue, in place of the usual ones.

    Attributes:
        backlog: messages that are ready.
        failure_rate: share of the jobs that ended as dead letters, from 0 to 1.
        mean_delay: seconds that jobs waited, on average.
        retry_rate: share of the attempts that failed and are tried again, from 0 to 1.
        oldest: seconds for which the oldest ready message has waited.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backlog: Count | None = None
    failure_rate: Share | None = None
    mean_delay: Seconds | None = None
    retry_rate: Share | None = None
    oldest: Seconds | None = None


class Thresholds(BaseModel):
    """The thresholds of one application.

    Attributes:
        backlog, failure_rate, mean_delay: those of the document.
        sample: how many jobs must have ended, or attempts been made, before a share counts.
        window: minutes over which shares and means are taken.
        retry_rate: share of the attempts that failed and are tried again.
        oldest: seconds, by queue of a class of job; `other_oldest` of any other queue.
        new_letters, letters_window: so many new dead letters of a task within so many minutes.
        interrupted: starts of a task without an outcome, within `window`.
        busy_for: seconds for which all processes may run one task while others wait.
        journal_lag, count_lag: seconds for which an event may wait for SQL, and for being counted.
        overdue: seconds for which a slot of a schedule may be due.
        memory: share of the limit of a Redis.
        queues: others for single queues.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backlog: Count = 1000
    failure_rate: Share = 0.05
    mean_delay: Seconds = 300
    sample: Count = 20
    window: Annotated[int, Field(ge=1, le=60)] = 5
    retry_rate: Share = 0.2
    oldest: Mapping[str, Seconds] = {"immediate": 60, "scheduled": 600, "long": 3600}
    other_oldest: Seconds = 300
    new_letters: Count = 10
    letters_window: Annotated[int, Field(ge=1, le=60)] = 15
    interrupted: Count = 5
    busy_for: Seconds = 60
    journal_lag: Seconds = 30
    count_lag: Seconds = 30
    overdue: Seconds = 60
    memory: Share = 0.8
    queues: Mapping[str, QueueThresholds] = {}

    def backlog_of(self, queue: str) -> int:
        """That of one queue."""
        return self._own(queue).backlog or self.backlog

    def failure_rate_of(self, queue: str) -> float:
        """That of the tasks of one queue."""
        return self._own(queue).failure_rate or self.failure_rate

    def mean_delay_of(self, queue: str) -> float:
        """That of one queue."""
        return self._own(queue).mean_delay or self.mean_delay

    def retry_rate_of(self, queue: str) -> float:
        """That of the tasks of one queue."""
        return self._own(queue).retry_rate or self.retry_rate

    def oldest_of(self, queue: str) -> float:
        """That of one queue."""
        return self._own(queue).oldest or self.oldest.get(queue, self.other_oldest)

    def _own(self, queue: str) -> QueueThresholds:
        return self.queues.get(queue, QueueThresholds())
