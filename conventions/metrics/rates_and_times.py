"""`Figures`: what people ask of a time span: how much, how much of it failed, how long it took, how long it waited."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conventions.metrics.event_sums import added
from conventions.metrics.histogram import RUN, WAIT, Histogram
from conventions.metrics.read_counts import Counts
from conventions.metrics.series import Series


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of some attempts.

    Attributes:
        counts: as they were counted, by name.
    """

    counts: Mapping[str, int]

    def of(self, kind: str) -> int:
        """How many attempts ended so."""
        return self.counts.get(kind, 0)

    @property
    def ended(self) -> int:
        """Jobs that ended: well, or as a dead letter."""
        return self.of("succeeded") + self.of("dead")

    @property
    def failure_rate(self) -> float | None:
        """The share of the ended jobs that are dead letters, from 0 to 1. `None`: none has ended."""
        return self.of("dead") / self.ended if self.ended else None

    @property
    def retry_rate(self) -> float | None:
        """The share of the attempts that failed and are tried again. `None`: there was none."""
        attempts = self.ended + self.of("retried")
        return self.of("retried") / attempts if attempts else None

    @property
    def run(self) -> Histogram:
        """How long attempts ran."""
        return Histogram.of(RUN, self.counts)

    @property
    def wait(self) -> Histogram:
        """How long they lacked nothing but a free worker."""
        return Histogram.of(WAIT, self.counts)


def together(several: Sequence[Figures]) -> Figures:
    """The figures of all."""
    return Figures(added([one.counts for one in several]))


def by_series(counts: Counts, minutes: int, known: Sequence[Series] = ()) -> dict[Series, Figures]:
    """The figures of each series over the last so many minutes, the present one included; two hours at the most. Raises: RedisError.

    Args:
        counts: what was counted.
        minutes: how many.
        known: series that are there also where nothing was counted.
    """
    last = counts.this_minute()
    found: dict[Series, list[Mapping[str, int]]] = {one: [] for one in known}
    for of_minute in counts.minutes(last - minutes + 1, last).values():
        for series, counted in of_minute.items():
            found.setdefault(series, []).append(counted)
    return {series: Figures(added(several)) for series, several in sorted(found.items())}
