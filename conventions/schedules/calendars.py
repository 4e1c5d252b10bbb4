"""Calendars for `cron(..., only=..., not_on=...)`: functions that say whether a date belongs to them."""

import functools
from collections.abc import Container
from datetime import date

SATURDAY = 5


def japanese_business_days(day: date) -> bool:
    """Monday to Friday, except Japanese public holidays and 31 December to 3 January.

    The days around New Year are no public holidays, but banks are closed by law (Banking Act, article 15) and offices
    by custom. Offices that close from 29 December (as the government's do) pass a function of their own.

    >>> japanese_business_days(date(2026, 5, 6)), japanese_business_days(date(2026, 5, 7))
    (False, True)
    """
    return day.weekday() < SATURDAY and day not in _japanese_holidays()


@functools.cache
def _japanese_holidays() -> Container[date]:
    import holidays  # noqa: PLC0415  # slow to import, and most processes never need it

    return holidays.country_holidays("JP", categories=("public", "bank"))
