"""`Sums`: what is counted of the events in a part of the journal. Pure arithmetic.

Counts are whole numbers and times whole microseconds, so that sums are exact in any order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from conventions.core.error_text import FailureText
from conventions.metrics.histogram import RUN, WAIT, measure
from conventions.metrics.series import Series
from conventions.records.journal import ASIDE, Event

OVERLONG = "overlong"
FAILED_BY = "failed by "  # before the name of an error

LONGEST = 1e9  # seconds; more is no time, and its sum would not fit into a number of Redis
MINUTE = 60_000  # ms

_AGAIN = (*ASIDE, "hung")  # after these kinds the message itself goes on


@dataclass(slots=True)
class Cause:
    """Failures with one cause, in one part of the journal.

    Attributes:
        first, last: ms since the epoch, of the earliest and of the latest failure.
        message: of the latest.
        example: id of the latest message.
        retried, dead: how many attempts failed, and were the last.
        workers, releases: failures by worker, and by release.
        minutes: failures by minute since the epoch and kind.
    """

    task: str
    queue: str
    error: str
    message: str
    first: int
    last: int
    example: str
    retried: int = 0
    dead: int = 0
    workers: dict[str, int] = field(default_factory=dict)
    releases: dict[str, int] = field(default_factory=dict)
    minutes: dict[tuple[int, str], int] = field(default_factory=dict)


class Sums:
    """What was counted of some events, in the order of the journal.

    Args:
        split_after: seconds; a longer run is counted as overlong.

    Attributes:
        minutes: counts by name, for each minute since the epoch and series.
        causes: failures by their fingerprint.
        retrying: for each message that failed or ended: fingerprint and queue if it will be tried again, else `None`.
        releases: ms since the epoch when an attempt of each release ended first.
    """

    def __init__(self, split_after: float = 60.0) -> None:
        self._split_after = split_after
        self.minutes: dict[tuple[int, Series], dict[str, int]] = {}
        self.causes: dict[str, Cause] = {}
        self.retrying: dict[str, tuple[str, str] | None] = {}
        self.releases: dict[str, int] = {}

    def add(self, event: Event, at: int) -> None:
        """Count one event. `at`: ms since the epoch, of its end."""
        series = Series(event.task or "", event.queue or "")
        minute = (at // MINUTE, series)
        counts = self.minutes.get(minute)
        if counts is None:
            counts = self.minutes[minute] = {}
        kind = event.kind
        counts[kind] = counts.get(kind, 0) + 1
        if event.runtime is not None and event.runtime < LONGEST:
            measure(counts, RUN, event.runtime)
            if event.runtime > self._split_after:
                counts[OVERLONG] = counts.get(OVERLONG, 0) + 1
        if event.wait is not None and event.wait < LONGEST:
            measure(counts, WAIT, event.wait)
        if event.release is not None:
            self.releases.setdefault(event.release, at)
        if kind == "succeeded":
            if event.attempt > 1 or event.generation > 0:
                self.retrying[event.message_id] = None
        else:
            self._add_unusual(event, at, series, counts)

    def _add_unusual(self, event: Event, at: int, series: Series, counts: dict[str, int]) -> None:
        failure = event.failure
        if event.kind in ("retried", "dead") and failure is not None:
            name = FAILED_BY + failure.error
            counts[name] = counts.get(name, 0) + 1
            if failure.fingerprint:
                self._add_cause(event, failure, at, series)
        if event.kind == "retried":
            self.retrying[event.message_id] = (failure.fingerprint if failure is not None else "", series.queue)
        elif event.kind not in _AGAIN:
            self.retrying[event.message_id] = None

    def _add_cause(self, event: Event, failure: FailureText, at: int, series: Series) -> None:
        cause = self.causes.get(failure.fingerprint)
        if cause is None:
            cause = Cause(series.task, series.queue, failure.error, failure.error_message, at, at, event.message_id)
            self.causes[failure.fingerprint] = cause
        cause.first, cause.last = min(cause.first, at), max(cause.last, at)
        cause.message, cause.example = failure.error_message, event.message_id
        if event.kind == "dead":
            cause.dead += 1
        else:
            cause.retried += 1
        minute = (at // MINUTE, event.kind)
        cause.minutes[minute] = cause.minutes.get(minute, 0) + 1
        for known, name in ((cause.workers, event.worker), (cause.releases, event.release)):
            if name:
                known[name] = known.get(name, 0) + 1


def added(several: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The sums of counts by name."""
    total: dict[str, int] = {}
    for counts in several:
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
    return total


def errors_in(counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """The errors by which attempts failed, and how many."""
    return ((name.removeprefix(FAILED_BY), count) for name, count in counts.items() if name.startswith(FAILED_BY))
