"""Calendars for `cron(..., only=..., not_on=...)`: sets of dates, or functions that say whether a date belongs to them."""

import functools
from collections.abc import Callable, Container
from datetime import date, datetime
from typing import TypeAlias

from conventions.core import extras
from conventions.core.errors import ScheduleError

Calendar: TypeAlias = Callable[[date], bool] | Container[date]

SATURDAY = 5
SETS = (set, frozenset, list, tuple)
FEW_DAYS = 3  # the days of a set that a text names


def japanese_business_days(day: date) -> bool:
    """Monday to Friday, except Japanese public holidays and 31 December to 3 January.

    The days around New Year are no public holidays, but banks are closed by law (Banking Act, article 15) and offices
    by custom. Offices that close from 29 December (as the government's do) pass a function of their own.

    Raises:
        ScheduleError: the package `holidays` is not installed; `cron` says so already.

    >>> japanese_business_days(date(2026, 5, 6)), japanese_business_days(date(2026, 5, 7))
    (False, True)
    """
    return day.weekday() < SATURDAY and day not in _japanese_holidays()


@functools.cache
def _japanese_holidays() -> Container[date]:
    _need_holidays()
    import holidays  # noqa: PLC0415  # slow to import, and most processes never need it

    return holidays.country_holidays("JP", categories=("public", "bank"))


def _need_holidays() -> None:
    if not extras.is_installed("holidays"):
        raise ScheduleError(f"japanese_business_days cannot know the holidays: {extras.how_to_install('holidays')}")


def check_calendar(calendar: Calendar | None) -> None:
    """Refuse what is none. Raises: ScheduleError."""
    named = getattr(calendar, "__name__", "")
    usable = callable(calendar) or hasattr(calendar, "__contains__")
    if calendar is not None and (isinstance(calendar, str) or not usable or named == "<lambda>"):
        raise ScheduleError(f"{calendar!r} is no calendar: pass a named function of a date, or a set of dates")
    if calendar is japanese_business_days:
        _need_holidays()
    if isinstance(calendar, SETS):
        for day in calendar:
            if not isinstance(day, date) or isinstance(day, datetime):
                raise ScheduleError(f"the days of a calendar are dates, such as date(2026, 12, 1), not {day!r}")


def contains(calendar: Calendar, day: date) -> bool:
    """Whether the day belongs to it."""
    return bool(calendar(day)) if callable(calendar) else day in calendar


def name_of(calendar: Calendar | None) -> str:
    """A calendar in a text for people."""
    if isinstance(calendar, SETS) and calendar:
        days = sorted(calendar)
        return f"{', '.join(map(str, days[:FEW_DAYS]))}{f' and {len(days) - FEW_DAYS} days more' if days[FEW_DAYS:] else ''}"
    return str(getattr(calendar, "__name__", type(calendar).__name__))
