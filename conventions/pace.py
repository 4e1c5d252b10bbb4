"""How long jobs of a task take, and so how many of them may go to a process together. No Celery."""

from dataclasses import dataclass

TOGETHER = 0.020  # seconds that jobs may take whose claims are taken together
HANDED = 0.080  # seconds that the jobs may take that a process is given at once
MOST = 256  # of those jobs, whatever they take
CLAIMED = 128  # jobs whose claims are taken together, whatever they take
GAIN, DEVIATION_GAIN, DEVIATIONS = 1 / 8, 1 / 4, 4


@dataclass(slots=True)
class Pace:
    """The run time of a task's jobs in seconds, as TCP estimates a round trip: a mean and its deviation (RFC 6298, 2).

    Attributes:
        mean: smoothed; `None` before the first job has ended.
        deviation: how far jobs are from it, smoothed.
    """

    mean: float | None = None
    deviation: float = 0.0

    def add(self, seconds: float) -> None:
        """A job has ended."""
        if self.mean is None:
            self.mean, self.deviation = seconds, seconds / 2
            return
        self.deviation += DEVIATION_GAIN * (abs(self.mean - seconds) - self.deviation)
        self.mean += GAIN * (seconds - self.mean)

    @property
    def expected(self) -> float:
        """Seconds that hardly any job exceeds; of a task of which nothing is known, all that a group may take."""
        return TOGETHER if self.mean is None else min(self.mean + DEVIATIONS * self.deviation, TOGETHER)

    @property
    def is_short(self) -> bool:
        """Whether another job fits beside one of this task."""
        return self.expected <= TOGETHER / 2
