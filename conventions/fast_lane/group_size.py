"""How long the jobs of a task take, and therefore how many of them may be in one group. No Celery."""

import math
from collections import defaultdict
from dataclasses import dataclass, replace

TOGETHER = 0.020  # seconds: the run time of all jobs of one part, whose claims are asked for in one call
HANDED = 0.080  # seconds: the run time of all jobs of one group
MOST = 384  # jobs in one group, however short they are
CLAIMED = 128  # jobs in one part, however short they are
RETURN_AFTER = 1.0  # seconds after which the members of a group that have not begun go back to their queues
PROCESSES = 10_000  # remembered pairs of task and process; after that all are forgotten
LONGEST = 4 * HANDED  # seconds: a longer job counts as this long
COLD = 0.2  # seconds: the first job of a process does not count if it took less than this
SETTLED = 32  # jobs after which the mean is smoothed exponentially
ENOUGH = 8  # jobs of a task in groups, after which jobs that ran alone are forgotten
IN_A_ROW = 3  # short jobs in groups, after which a task that was known as long counts as short
SELDOM = 8  # jobs of a task that takes long, of which one is measured in a group of its own
GAIN, DEVIATION_GAIN, DEVIATIONS = 1 / SETTLED, 1 / 8, 4


@dataclass(slots=True)
class RuntimeEstimate:
    """An estimate of the run time of jobs, in seconds, like TCP's estimate of a round trip: mean and deviation (RFC 6298, section 2).

    The gains are smaller than TCP's: a worker sees thousands of jobs, and a single one may have waited for a processor.

    Attributes:
        mean: the mean of the first jobs, later smoothed exponentially. `None` before the first job has ended.
        deviation: the smoothed mean deviation.
        jobs: the number of jobs that have ended, up to `SETTLED`.
    """

    mean: float | None = None
    deviation: float = 0.0
    jobs: int = 0

    def add(self, seconds: float) -> None:
        """Count a job that took so many seconds."""
        seconds = min(max(0.0, seconds), LONGEST)  # a clock may have been set back
        self.jobs = min(self.jobs + 1, SETTLED)
        if self.mean is None:
            self.mean, self.deviation = seconds, seconds / 2
            return
        # The first deviation is only assumed. So while there are few jobs, each one weighs as much as it.
        gain = max(DEVIATION_GAIN, 1 / (self.jobs + 1))
        self.deviation += gain * (abs(self.mean - seconds) - self.deviation)
        self.mean += (seconds - self.mean) / self.jobs

    @property
    def doubt(self) -> float:
        """The variance of the mean, as a part of the variance of one job."""
        return GAIN / (2 - GAIN) if self.jobs == SETTLED else 1 / max(self.jobs, 1)

    @property
    def expected(self) -> float:
        """Seconds that hardly any job exceeds. `TOGETHER` if nothing is known, and never more."""
        return TOGETHER if self.mean is None else min(self.mean + DEVIATIONS * self.deviation, TOGETHER)

    @property
    def is_short(self) -> bool:
        """Whether at least two such jobs fit into one part."""
        return self.expected <= TOGETHER / 2

    def fitting(self, seconds: float) -> float:
        """How many jobs fit into so many seconds, by the sum that `GroupSize` makes."""
        mean, square = max(self.mean or 0.0, 1e-9), (DEVIATIONS * self.deviation) ** 2
        # The smaller root n of (seconds - n mean)^2 = square (n + doubt n^2).
        half = seconds * mean + square / 2
        root = math.sqrt(square * (seconds * mean + square / 4 + self.doubt * seconds**2))
        return seconds**2 / (half + root)


@dataclass(slots=True)
class GroupSize:
    """An estimate of the run time of several jobs in a row.

    The jobs are taken as independent: means add up, and so do the squares of deviations. The error of a mean is the same for
    all jobs of a task, so these errors add up without squares.
    """

    mean: float = 0.0
    square: float = 0.0
    doubt: float = 0.0

    def add(self, estimate: RuntimeEstimate) -> None:
        """Add a job with this estimate."""
        self.mean += TOGETHER if estimate.mean is None else estimate.mean
        self.square += estimate.deviation * estimate.deviation
        self.doubt += estimate.deviation * math.sqrt(estimate.doubt)

    @property
    def expected(self) -> float:
        """Seconds that all these jobs together hardly ever exceed."""
        return self.mean + DEVIATIONS * math.sqrt(self.square + self.doubt * self.doubt)


class RuntimeEstimates:
    """The estimates of one worker: one for each task, and one for all jobs except those of long queues (`mix`).

    The first job of a task in each process does not count, alone or in a group. It imports, connects and fills caches, so it
    may take a hundred times as long as the next one.

    A job that runs alone also waits for its claim and for the record of its outcome, so it looks longer than in a group. Such
    jobs are forgotten when the jobs in groups alone show that the task is short, or when there are `ENOUGH` of those. After
    that a job that ran alone counts only if the task is no longer short, or if this job was long itself.
    """

    def __init__(self) -> None:
        self._by_task: defaultdict[str, RuntimeEstimate] = defaultdict(RuntimeEstimate)
        self._together: set[str] = set()  # tasks whose estimate is of jobs in groups
        # Of the other tasks: the estimate of their jobs in groups so far.
        self._in_groups: defaultdict[str, RuntimeEstimate] = defaultdict(RuntimeEstimate)
        # Of tasks that take long: their jobs since the last one that was measured.
        self._alone: defaultdict[str, int] = defaultdict(int)
        self._warm: set[tuple[str, int, bool]] = set()
        self.mix = RuntimeEstimate()

    def add(self, task: str, seconds: float, process: int | None, *, together: bool, is_long: bool = False) -> None:
        """Count a job that has ended.

        Args:
            task: the name of its task.
            seconds: its run time.
            process: the id of its process; `None`: a process that has run other jobs before.
            together: whether it was in a group.
            is_long: whether it came from a long queue. The worker reads only one message per process from such queues.
        """
        if self._is_first(task, process, together) and seconds < COLD:
            return
        if not together and task in self._together and seconds < TOGETHER and self._by_task[task].is_short:
            return
        self._by_task[task].add(seconds)
        if not is_long:
            self.mix.add(seconds)
        if task not in self._together:
            if together:
                self._learn(task, seconds)
            else:
                self._in_groups.pop(task, None)  # jobs in groups before this one may be long ago
        elif together and not self._by_task[task].is_short:
            self._learn_again(task, seconds)

    def _is_first(self, task: str, process: int | None, together: bool) -> bool:
        if process is None or (task, process, together) in self._warm:
            return False
        if len(self._warm) >= PROCESSES:
            self._warm.clear()
        self._warm.add((task, process, together))
        return True

    def _learn(self, task: str, seconds: float) -> None:
        """Jobs in groups are the estimate of their task once they show that it is short, or there are `ENOUGH` of them."""
        estimate = self._in_groups[task]
        estimate.add(seconds)
        if estimate.is_short or estimate.jobs >= ENOUGH:
            self._begin_with(task, estimate)

    def _learn_again(self, task: str, seconds: float) -> None:
        """Of a task that is known as long, `IN_A_ROW` jobs in a row that are short are a new estimate."""
        if seconds > HANDED:
            self._in_groups.pop(task, None)
            return
        estimate = self._in_groups[task]
        estimate.add(seconds)
        if estimate.is_short and estimate.jobs >= IN_A_ROW:
            self._begin_with(task, estimate)

    def _begin_with(self, task: str, estimate: RuntimeEstimate) -> None:
        """Forget all jobs of this task but those of the estimate."""
        self._in_groups.pop(task, None)
        self._together.add(task)
        self._by_task[task] = estimate
        # Otherwise the mix contains other tasks, too.
        if all(other is estimate or other.mean is None for other in self._by_task.values()):
            self.mix = replace(estimate)

    def narrow(self) -> None:
        """Read less ahead for the next few jobs: what was read ahead is not short."""
        for _ in range(2):
            self.mix.add(TOGETHER)

    def of(self, task: str) -> RuntimeEstimate:
        """The estimate of a task. A new one is made if there is none."""
        return self._by_task[task]

    def measures_next(self, task: str) -> bool:
        """Whether the next job of this task is to run in a group of its own, since its jobs may be short.

        There neither its claim nor its outcome is part of its run time. Where the server is some milliseconds away, or the machine
        is busy, no job that runs alone looks short. Of jobs that take long, one in `SELDOM` is measured so: the first ones may have
        taken long for another reason.
        """
        estimate = self._by_task.get(task)
        if estimate is None or estimate.mean is None:
            return True
        if estimate.is_short:
            return False
        if estimate.mean <= HANDED:
            return True
        self._alone[task] = (self._alone[task] + 1) % SELDOM
        return self._alone[task] == 0

    def is_short(self, task: str) -> bool:
        """Whether jobs of this task are known to be short."""
        estimate = self._by_task.get(task)
        return estimate is not None and estimate.is_short
