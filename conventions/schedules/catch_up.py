"""Which slots a schedule still has to send, from its cursor, the time and its catch-up rule (R10). Pure arithmetic.

The words are Temporal's: a *catch-up window* says how late a slot may be sent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import Literal, TypeAlias, get_args

from conventions.schedules.slots import When

CatchUp: TypeAlias = Literal["latest", "none", "all"]

RULES = get_args(CatchUp)
ON_TIME = timedelta(minutes=1)  # with "none": after a fail-over or a short outage a slot still counts as on time
MOST = 1000  # the most slots that are caught up, or counted as missed, at once
SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Passed:
    """Slots that are not sent: the first, the last, and their number. The number stops at 1,000."""

    first: datetime
    last: datetime
    count: int

    def __str__(self) -> str:
        if self.count == 1:
            return f"the slot of {self.last.isoformat()}"
        return f"{self.count} slots, from {self.first.isoformat()} to {self.last.isoformat()}"


@dataclass(frozen=True, slots=True)
class Due:
    """What to do now: the slots to send, oldest first, and the missed slots before them."""

    send: tuple[datetime, ...] = ()
    missed: Passed | None = None


def due_slots(
    when: When,
    cursor: datetime,
    now: datetime,
    zone: tzinfo,
    *,
    rule: CatchUp = "latest",
    within: timedelta | None = None,
) -> Due:
    """The slots after `cursor` up to `now`, divided into those to send and those that are missed.

    Args:
        when: the times.
        cursor: the latest slot that was sent.
        now: the time.
        zone: of the app.
        rule: `latest`: send the last slot only. `all`: send each slot, the newest 1,000 at most. `none`: send the last
            slot if it is on time.
        within: how late a slot may be sent; default: any time, and a minute with `none`.
    """
    window = within or (ON_TIME if rule == "none" else None)
    found = _backwards(when, cursor, now, zone)
    send: list[datetime] = []
    missed: list[datetime] = []
    for slot in islice(found, MOST if rule == "all" else 1):
        if window is not None and now - slot > window:
            missed.append(slot)
            break
        send.append(slot)
    missed += islice(found, MOST - len(missed))
    return Due(tuple(reversed(send)), _passed(missed, when, cursor, zone))


def passed_slots(when: When, cursor: datetime, until: datetime, zone: tzinfo) -> Passed | None:
    """The slots after `cursor` up to `until`, if nobody sends them; `None` when there is none."""
    return _passed(list(islice(_backwards(when, cursor, until, zone), MOST)), when, cursor, zone)


def _backwards(when: When, cursor: datetime, now: datetime, zone: tzinfo) -> Iterator[datetime]:
    slot = when.latest_slot(now, zone)
    while slot is not None and slot.timestamp() > cursor.timestamp():
        yield slot
        slot = when.latest_slot(slot.astimezone(UTC) - SECOND, zone)


def _passed(newest_first: list[datetime], when: When, cursor: datetime, zone: tzinfo) -> Passed | None:
    if not newest_first:
        return None
    first = newest_first[-1]
    if len(newest_first) == MOST:  # there may be earlier ones
        first = when.next_slot(cursor, zone) or first
    return Passed(first, newest_first[0], len(newest_first))
