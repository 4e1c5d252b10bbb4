"""`every(...)`: a schedule by an interval. Pure arithmetic."""

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from conventions.core.errors import ScheduleError


@dataclass(frozen=True, slots=True)
class Every:
    """Made by `every`. Slots are the multiples of `seconds` since the epoch, so they are the same for everyone."""

    seconds: int

    def next_slot(self, after: datetime, zone: tzinfo) -> datetime | None:
        """The first slot later than `after`, in `zone`."""
        return datetime.fromtimestamp((after.timestamp() // self.seconds + 1) * self.seconds, zone)

    def latest_slot(self, at: datetime, zone: tzinfo) -> datetime | None:
        """The last slot not later than `at`, in `zone`."""
        return datetime.fromtimestamp(at.timestamp() // self.seconds * self.seconds, zone)

    @property
    def words(self) -> str:
        """The schedule in plain English."""
        return str(self)

    def __str__(self) -> str:
        for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
            if self.seconds % length == 0:
                return f"every {self.seconds // length}{unit}"
        return f"every {self.seconds}s"


def every(interval: timedelta | float) -> Every:
    """Due at each multiple of `interval` (a timedelta, or seconds) since the epoch, 1970-01-01 00:00 UTC.

    So a schedule of whole days is due at 09:00 in Tokyo; for a time of day use `cron`.

    Raises:
        ScheduleError: less than a second, or not a whole number of seconds.

    >>> str(every(timedelta(minutes=5)))
    'every 5m'
    """
    if isinstance(interval, bool) or not isinstance(interval, (int, float, timedelta)):
        raise ScheduleError(f"every({interval!r}): write every(timedelta(minutes=5)), or a number of seconds")
    seconds = interval.total_seconds() if isinstance(interval, timedelta) else float(interval)
    if seconds < 1 or seconds % 1:
        raise ScheduleError(f"every({interval!r}): write a whole number of seconds, at least 1")
    return Every(int(seconds))
