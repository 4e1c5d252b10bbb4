"""Japanese business days."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from conventions.schedules.calendars import japanese_business_days
from conventions.schedules.cron import cron
from conventions.schedules.slots import slots


@pytest.mark.parametrize(
    ("day", "open_"),
    [
        ("2026-11-25", True),  # a Wednesday
        ("2026-11-28", False),  # a Saturday
        ("2026-11-23", False),  # Labour Thanksgiving Day
        ("2026-12-29", True),
        ("2026-12-30", True),
        ("2026-12-31", False),  # bank holidays
        ("2027-01-01", False),
        ("2027-01-04", True),
        ("2029-01-03", False),  # a Wednesday, bank holiday
        ("2026-09-22", False),  # the day between two holidays is one
        ("2019-05-01", False),  # the accession
    ],
)
def test_business_days(day: str, open_: bool) -> None:
    """Weekends, public holidays and 31 December to 3 January are no business days."""
    assert japanese_business_days(date.fromisoformat(day)) is open_


def test_golden_week() -> None:
    """In Golden Week of 2026 a schedule on business days rests from 2 to 6 May."""
    start = datetime(2026, 4, 28, tzinfo=UTC)
    days = [
        slot.date()
        for _, slot in zip(
            range(4), slots(cron("0 9 * * *", only=japanese_business_days), start, ZoneInfo("Asia/Tokyo")), strict=False
        )
    ]
    assert days == [date(2026, 4, 28) + timedelta(days=n) for n in (2, 3, 9, 10)]
