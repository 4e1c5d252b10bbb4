"""The histograms of run times and waits: their buckets, how a time is counted in them, and the mean and quantiles that follow from them. Pure arithmetic."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

RUN_BOUNDS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 90, 120, 300, 600, 1800, 3600, 7200, 21600,
)  # fmt: skip
"""Upper bounds of the run times that a histogram tells apart, in seconds."""
WAIT_BOUNDS = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 90, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 86400,
)  # fmt: skip
"""The same of waits."""
RUN, WAIT = "run", "wait"
BOUNDS: Mapping[str, tuple[float, ...]] = {RUN: RUN_BOUNDS, WAIT: WAIT_BOUNDS}
SUM, BEYOND = "sum", "inf"
MICROSECONDS = 1_000_000

_LABELS = {name: (*(f"{name}:{bound:g}" for bound in bounds), f"{name}:{BEYOND}") for name, bounds in BOUNDS.items()}
_SUMS = {name: f"{name}:{SUM}" for name in BOUNDS}


def measure(counts: dict[str, int], name: str, seconds: float) -> None:
    """Count one event that took so long, in the histogram `RUN` or `WAIT`."""
    seconds = max(seconds, 0.0)  # a clock may have been set back
    label = _LABELS[name][bisect_left(BOUNDS[name], seconds)]
    counts[label] = counts.get(label, 0) + 1
    total = _SUMS[name]
    counts[total] = counts.get(total, 0) + round(seconds * MICROSECONDS)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long something took, over some events.

    Attributes:
        bounds: upper bounds of the buckets, in seconds, without the last one, which has none.
        counts: events in each bucket; one more than there are bounds.
        seconds: the sum.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    seconds: float = 0.0

    @classmethod
    def of(cls, name: str, counts: Mapping[str, int]) -> "Histogram":
        """The histogram `RUN` or `WAIT` of what was counted."""
        found = tuple(counts.get(label, 0) for label in _LABELS[name])
        return cls(BOUNDS[name], found, counts.get(_SUMS[name], 0) / MICROSECONDS)

    @property
    def count(self) -> int:
        """How many events."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Seconds; `None` without events."""
        return self.seconds / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """Seconds within which this share of the events lies, between 0 and 1; `None` without events.

        As Prometheus's `histogram_quantile`: events are taken to be spread evenly within a bucket, and what is beyond the last bound counts as that.
        So it may be wrong by the width of a bucket; but no event took longer than all of them together.
        """
        wanted, before = share * self.count, 0
        if not self.count:
            return None
        longest = self.seconds if self.seconds > 0 else self.bounds[-1]
        for index, (upper, count) in enumerate(zip(self.bounds, self.counts, strict=False)):
            if count and before + count >= wanted:
                lower = self.bounds[index - 1] if index else 0.0
                return min(lower + (upper - lower) * max(wanted - before, 0) / count, max(longest, lower))
            before += count
        return min(self.bounds[-1], longest)
