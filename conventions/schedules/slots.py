"""When a schedule is due: `When` says it, and `slots` lists it.

A *slot* is one planned time: an aware datetime in the requested time zone, exact to the second.
"""

from collections.abc import Iterator
from datetime import datetime, tzinfo
from typing import Protocol


class When(Protocol):
    """The result of `cron` and `every`."""

    def next_slot(self, after: datetime, zone: tzinfo) -> datetime | None:
        """The first slot later than `after`, in `zone`; `None` when there is none within 50 years."""

    def latest_slot(self, at: datetime, zone: tzinfo) -> datetime | None:
        """The last slot not later than `at`, in `zone`; `None` when there is none within 50 years."""

    @property
    def words(self) -> str:
        """The schedule in plain English."""


def slots(when: When, after: datetime, zone: tzinfo) -> Iterator[datetime]:
    """All slots later than `after`, in order."""
    slot = when.next_slot(after, zone)
    while slot is not None:
        yield slot
        slot = when.next_slot(slot, zone)
