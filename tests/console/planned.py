"""The schedules of the tests' Flower, which breaks in two places while there are files of these names in its folder."""

from datetime import date, datetime, timedelta
from pathlib import Path

from conventions.schedules.calendars import japanese_business_days
from conventions.schedules.cron import cron
from conventions.schedules.interval import every
from conventions.schedules.schedule import Schedule, planned_date
from tests.cli.command_tasks import Charge, Import, Named, Send

BROKEN_CALENDAR, BROKEN_ARGUMENT = "broken-calendar", "broken-argument"


def holidays(day: date) -> bool:
    """The first of January."""
    if Path(BROKEN_CALENDAR).exists():
        raise LookupError(f"<b>{day.year}</b> is not known")
    return day.month == day.day == 1


def next_order(planned: datetime) -> int:
    """A number for each hour."""
    if Path(BROKEN_ARGUMENT).exists():
        raise LookupError("no <b>orders</b>")
    return planned.hour


SCHEDULE = [
    Schedule("daily-mail", cron("0 9 * * *"), Send, {"user_id": 7, "day": planned_date}),
    Schedule(
        "import",
        cron("30 3 * * MON-FRI", only=japanese_business_days),
        Import,
        {"path": "/home/anna@example.com/lines.csv"},
        catch_up="none",
        within=timedelta(hours=2),
        overlap="skip",
    ),
    Schedule("charge", every(3600), Charge, {"order_id": next_order}, catch_up="all", overlap="skip"),
    Schedule("count", cron("*/10 8-18 * * *", not_on=holidays), Named, {"番号": 1}, catch_up="none"),
]
DAILY, IMPORT, CHARGE, COUNT = SCHEDULE
