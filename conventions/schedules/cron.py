"""`cron(...)`: a schedule by the wall clock. Pure arithmetic; cronsim does the fields."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from cronsim import CronSim, CronSimError

from conventions.core.errors import ScheduleError
from conventions.schedules.calendars import Calendar, check_calendar, contains, name_of

YEARS_AHEAD = 50  # how far cronsim looks for a next slot
NEAR_SHIFT = timedelta(hours=3)  # no zone moves its clocks by more

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = {
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT, where 0 and 7 are Sunday",
}


@dataclass(frozen=True, slots=True)
class Cron:
    """Made by `cron`; `expression` has five fields."""

    expression: str
    only: Calendar | None = None
    not_on: Calendar | None = None

    def next_slot(self, after: datetime, zone: tzinfo) -> datetime | None:
        """The first slot later than `after`, in `zone`; `None` when there is none within 50 years."""
        start = after.astimezone(zone)
        while True:
            slot = next((s for s in CronSim(self.expression, start) if s.timestamp() > after.timestamp()), None)
            if slot is None or slot.year > after.year + YEARS_AHEAD:
                return None
            if self._allows(slot.date()):
                return slot
            # fold=1: if clocks go back at midnight, the later of the two times
            start = datetime.combine(slot, time(23, 59, 59), zone).replace(fold=1)

    def latest_slot(self, at: datetime, zone: tzinfo) -> datetime | None:
        """The last slot not later than `at`, in `zone`; `None` when there is none within 50 years."""
        second = at.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        start = second.astimezone(zone)
        if start.utcoffset() != (second - NEAR_SHIFT).astimezone(zone).utcoffset():
            # An hour occurs twice here. cronsim steps back on the wall clock and would miss the slots of the first one.
            start = (second + NEAR_SHIFT).astimezone(zone)
        while True:
            past = CronSim(self.expression, start, reverse=True)
            slot = next((s for s in past if s.timestamp() <= at.timestamp()), None)
            if slot is None or slot.year < at.year - YEARS_AHEAD:
                return None
            if self._allows(slot.date()):
                return slot
            start = datetime.combine(slot, time(), zone)

    def _allows(self, day: date) -> bool:
        return (self.only is None or contains(self.only, day)) and not (
            self.not_on is not None and contains(self.not_on, day)
        )

    @property
    def words(self) -> str:
        """The schedule in plain English."""
        return CronSim(self.expression, datetime(2000, 1, 1)).explain() + self._calendars  # noqa: DTZ001  # unused

    @property
    def _calendars(self) -> str:
        only = f", only {name_of(self.only)}" if self.only is not None else ""
        return only + (f", not on {name_of(self.not_on)}" if self.not_on is not None else "")

    def __str__(self) -> str:
        return self.expression + self._calendars


def cron(expression: str, *, only: Calendar | None = None, not_on: Calendar | None = None) -> Cron:
    """Due when the wall clock of the app's zone matches.

    Args:
        expression: `minute hour day-of-month month day-of-week`, with names (`MON`, `JAN`), ranges (`1-5`), lists
            (`1,15`) and steps (`*/10`); or `@hourly @daily @weekly @monthly @yearly`. When both day fields are
            restricted, either may match; a field that begins with `*`, as `*/2`, does not restrict (as in Debian).
        only: days on which it may be due: a function of a date, or anything that supports `in`, such as a set of dates.
        not_on: days on which it is never due, in the same form.

    When clocks change, a fixed time in the missing hour is due at the end of that hour. A fixed time in the repeated hour is due once.

    Raises:
        ScheduleError: not a cron expression, or one that is never due.

    >>> str(cron("@daily"))
    '0 0 * * *'
    """
    if not isinstance(expression, str):
        raise ScheduleError(f'cron({expression!r}): write the five fields as text, such as cron("0 9 * * *")')
    text = " ".join(expression.split()).lower()
    fields = NICKNAMES.get(text, text).upper().split()
    if len(fields) != len(FIELDS):
        raise ScheduleError(
            f"cron({expression!r}): five fields are needed ({' '.join(FIELDS)}), or one of {' '.join(NICKNAMES)}"
        )
    fields = [re.sub(r"\b(\w+)-\1/\d+", r"\1", field) for field in fields]  # 5-5/2 is 5; cronsim reads 5/2
    fields[4] = re.sub(r"(?<!\bSUN)-SUN\b", "-7", fields[4])  # FRI-SUN; for cronsim SUN is 0
    for calendar in (only, not_on):
        check_calendar(calendar)
    made = Cron(" ".join(fields), only, not_on)
    _check(expression, made)
    return made


def _check(written: str, made: Cron) -> None:
    try:
        # The first day of a leap year, so that 29 February is found. Calendars may end, so they are not used here.
        next(CronSim(made.expression, datetime(2028, 1, 1)))  # noqa: DTZ001  # a wall clock without a zone
    except CronSimError as error:
        name = str(error).removeprefix("Bad ")
        field = dict(zip(FIELDS, made.expression.split(), strict=True)).get(name, made.expression)
        if name == "day-of-month" and re.fullmatch(r"[\d,/*-]+", field) and _is_impossible(made.expression):
            raise _never(written) from None
        raise ScheduleError(f"cron({written!r}): {name} cannot be {field!r}; it takes {FIELDS.get(name)}") from None
    except StopIteration:
        raise _never(written) from None


def _is_impossible(expression: str) -> bool:
    """Whether cronsim refuses the day only because no month of the expression has it."""
    fields = expression.split()
    try:
        CronSim(" ".join([*fields[:3], "*", fields[4]]), datetime(2028, 1, 1))  # noqa: DTZ001
    except CronSimError:
        return False
    return True


def _never(written: str) -> ScheduleError:
    return ScheduleError(f"cron({written!r}): no such day ever comes; for the end of a month write L as day-of-month")
