"""How long jobs of a task take, and so how many of them may go to a process together. No Celery."""

import math
from collections import defaultdict
from dataclasses import dataclass, replace

TOGETHER = 0.020  # seconds that jobs may take whose claims are taken together
HANDED = 0.080  # seconds that the jobs may take that a process is given at once
MOST = 384  # of those jobs, whatever they take
CLAIMED = 128  # jobs whose claims are taken together, whatever they take
RETURN_AFTER = 1.0  # seconds after which what waits in a group goes back
PROCESSES = 10_000  # of which it is remembered that they have run a job; more are begun anew
LONGEST = 4 * HANDED  # seconds that a job counts as at the most: whatever is longer is long
COLD = 0.2  # seconds that the first job of a process may take because it is the first
SETTLED = 32  # jobs after which a mean is smoothed
ENOUGH = 8  # jobs of a task that went together, after which what others took is forgotten
GAIN, DEVIATION_GAIN, DEVIATIONS = 1 / SETTLED, 1 / 8, 4


@dataclass(slots=True)
class RuntimeEstimate:
    """The run time of a task's jobs in seconds, as TCP estimates a round trip: a mean and its deviation (RFC 6298, 2).

    TCP sees a few round trips, and a worker thousands of jobs, one of which may have waited for a processor: so the gains are
    smaller here.

    Attributes:
        mean: of all jobs at first, then smoothed; `None` before the first job has ended.
        deviation: how far jobs are from it, smoothed.
        jobs: how many have ended, as far as they count for the mean.
    """

    mean: float | None = None
    deviation: float = 0.0
    jobs: int = 0

    def add(self, seconds: float) -> None:
        """A job has ended."""
        seconds = min(max(0.0, seconds), LONGEST)  # a clock may have been set back
        self.jobs = min(self.jobs + 1, SETTLED)
        if self.mean is None:
            self.mean, self.deviation = seconds, seconds / 2
            return
        # That of the first job is assumed: of a few, each says as much as that.
        gain = max(DEVIATION_GAIN, 1 / (self.jobs + 1))
        self.deviation += gain * (abs(self.mean - seconds) - self.deviation)
        self.mean += (seconds - self.mean) / self.jobs

    @property
    def doubt(self) -> float:
        """The variance of the mean, of that of one job."""
        return GAIN / (2 - GAIN) if self.jobs == SETTLED else 1 / max(self.jobs, 1)

    @property
    def expected(self) -> float:
        """Seconds that hardly any job exceeds; of a task of which nothing is known, all that a group may take."""
        return TOGETHER if self.mean is None else min(self.mean + DEVIATIONS * self.deviation, TOGETHER)

    @property
    def is_short(self) -> bool:
        """Whether another job fits beside one of this task."""
        return self.expected <= TOGETHER / 2

    def fitting(self, seconds: float) -> float:
        """How many jobs hardly ever exceed so many seconds together, as `GroupSize` adds them up."""
        mean, square = max(self.mean or 0.0, 1e-9), (DEVIATIONS * self.deviation) ** 2
        # The smaller root n of (seconds - n mean)^2 = square (n + doubt n^2).
        half = seconds * mean + square / 2
        root = math.sqrt(square * (seconds * mean + square / 4 + self.doubt * seconds**2))
        return seconds**2 / (half + root)


@dataclass(slots=True)
class GroupSize:
    """What jobs take one after the other, where one says nothing of the next: means add up, and squares of deviations.

    The means may be wrong, too, by the same for all jobs of a task.
    """

    mean: float = 0.0
    square: float = 0.0
    doubt: float = 0.0

    def add(self, pace: RuntimeEstimate) -> None:
        """A job of this pace comes, too."""
        self.mean += TOGETHER if pace.mean is None else pace.mean
        self.square += pace.deviation * pace.deviation
        self.doubt += pace.deviation * math.sqrt(pace.doubt)

    @property
    def expected(self) -> float:
        """Seconds that they hardly ever exceed together."""
        return self.mean + DEVIATIONS * math.sqrt(self.square + self.doubt * self.doubt)


class Paces:
    """The paces of a worker's jobs: of each task, and of all as they come, but for those of queues of long jobs.

    The first job of a task in each process is left out, alone and in a group: it imports, connects, and finds nothing in any
    cache, so that it takes a hundred times as long as the next. A job that runs alone also waits for its claim and for the record
    of its outcome: what such jobs took is forgotten as soon as those that went together say by themselves that jobs are short, or
    are `ENOUGH`, and then counts only where jobs are not short any more, or this one was not.
    """

    def __init__(self) -> None:
        self._by_task: defaultdict[str, RuntimeEstimate] = defaultdict(RuntimeEstimate)
        self._together: set[str] = set()  # tasks whose pace is that of jobs of groups
        self._in_groups: defaultdict[str, RuntimeEstimate] = defaultdict(
            RuntimeEstimate
        )  # of other tasks, what those took that went together
        self._warm: set[tuple[str, int, bool]] = set()
        self.mix = RuntimeEstimate()

    def add(self, task: str, seconds: float, process: int | None, *, together: bool, is_long: bool = False) -> None:
        """A job has ended.

        Args:
            task: its task.
            seconds: that it took.
            process: where; `None`: in one that is known to have run others.
            together: whether it was one of a group.
            is_long: whether it came from a queue of long jobs, of which no more are read than there are processes.
        """
        if self._is_first(task, process, together) and seconds < COLD:
            return
        if not together and task in self._together and seconds < TOGETHER and self._by_task[task].is_short:
            return
        self._by_task[task].add(seconds)
        if not is_long:
            self.mix.add(seconds)
        if not together:
            self._in_groups.pop(task, None)  # what went together before that may be long ago
        elif task not in self._together:
            self._learn(task, seconds)

    def _is_first(self, task: str, process: int | None, together: bool) -> bool:
        if process is None or (task, process, together) in self._warm:
            return False
        if len(self._warm) >= PROCESSES:
            self._warm.clear()
        self._warm.add((task, process, together))
        return True

    def _learn(self, task: str, seconds: float) -> None:
        pace = self._in_groups[task]
        pace.add(seconds)
        if pace.is_short or pace.jobs >= ENOUGH:
            del self._in_groups[task]
            self._together.add(task)
            self._by_task[task] = pace
            if all(
                other is pace or other.mean is None for other in self._by_task.values()
            ):  # else the mix is of others, too
                self.mix = replace(pace)

    def narrow(self) -> None:
        """What was read ahead is not short after all: read no more of it for a few jobs."""
        for _ in range(2):
            self.mix.add(TOGETHER)

    def of(self, task: str) -> RuntimeEstimate:
        """The pace of a task, which is known from now on."""
        return self._by_task[task]

    def is_short(self, task: str) -> bool:
        """Whether jobs of this task are known to be short."""
        pace = self._by_task.get(task)
        return pace is not None and pace.is_short
