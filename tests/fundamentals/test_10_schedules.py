"""Chapter 10: a schedule says which task runs when; a slot runs once, whoever sends it (R10)."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from conventions import (
    Schedule,
    ScheduledTask,
    cron,
    every,
    japanese_business_days,
    planned_date,
)
from conventions.core.errors import ScheduleError
from tests.support import patient

TOKYO = ZoneInfo("Asia/Tokyo")


class Report(ScheduledTask):
    """Report on one day, and say which message did it."""

    ignore_result = False

    def run(self, day: date) -> list[str]:
        return [str(self.request.id), f"{day:%d.%m.}", str(self.planned_at)]


def test_a_schedule_names_a_task_and_its_arguments() -> None:
    """09:00 in Tokyo is midnight in UTC; the argument is computed from the slot."""
    schedule = Schedule("daily-report", cron("0 9 * * *"), Report, {"day": planned_date})
    slot = schedule.when.next_slot(datetime(2026, 1, 30, 12, tzinfo=UTC), TOKYO)
    assert slot == datetime(2026, 1, 31, 9, tzinfo=TOKYO)
    assert slot is not None
    assert schedule.arguments_at(slot) == {"day": date(2026, 1, 31)}


def test_a_schedule_may_repeat() -> None:
    """`every` has its slots at multiples of the interval."""
    schedule = Schedule("often", every(timedelta(minutes=5)), Report, {"day": date(2026, 1, 1)})
    slot = schedule.when.next_slot(datetime(2026, 1, 30, 12, 3, tzinfo=UTC), TOKYO)
    assert slot == datetime(2026, 1, 30, 12, 5, tzinfo=UTC)


def office_days(day: date) -> bool:
    """The days on which the office is open: a team's own rule."""
    return japanese_business_days(day) and (day.month, day.day) != (10, 1)


def test_a_calendar_says_on_which_days() -> None:
    """A function of a date, or a set of dates; 1 October 2026 is a Thursday."""
    schedule = Schedule("daily-report", cron("0 9 * * *", only=office_days), Report, {"day": planned_date})
    slot = schedule.when.next_slot(datetime(2026, 9, 30, 12, tzinfo=TOKYO), TOKYO)
    assert slot == datetime(2026, 10, 2, 9, tzinfo=TOKYO)
    again = cron("0 9 * * *", only=office_days, not_on={date(2026, 10, 2)})
    assert again.next_slot(datetime(2026, 9, 30, 12, tzinfo=TOKYO), TOKYO) == datetime(2026, 10, 5, 9, tzinfo=TOKYO)


def test_a_schedule_says_what_becomes_of_late_slots() -> None:
    """Three days went by without a beat, until noon: which of the slots still run, and which are missed."""
    cursor, noon = datetime(2026, 11, 25, 9, tzinfo=TOKYO), datetime(2026, 11, 28, 12, tzinfo=TOKYO)

    def days(**rules: Any) -> list[int]:
        entry = Schedule("daily-report", cron("0 9 * * *"), Report, {"day": planned_date}, **rules)
        return [slot.day for slot in entry.due(cursor, noon, TOKYO).send]

    assert days() == days(catch_up="latest") == [28]
    assert days(catch_up="all") == [26, 27, 28]
    assert days(catch_up="none") == []
    assert days(catch_up="all", within=timedelta(days=2)) == [27, 28]
    assert days(within=timedelta(hours=2)) == []


def test_a_schedule_that_cannot_work_is_refused_at_once() -> None:
    """Beat would meet the mistake at 02:00."""
    with pytest.raises(ScheduleError, match="missing a required argument: 'day'"):
        Schedule("daily-report", cron("0 9 * * *"), Report)


def test_a_slot_runs_once() -> None:
    """Two beats send the same slot: the second message is a duplicate."""
    slot = datetime(2026, 1, 31, 9, tzinfo=TOKYO)
    first = Report.apply_async((date(2026, 1, 31),), planned_at=slot)
    second = Report.apply_async((date(2026, 1, 31),), planned_at=slot)
    which, *rest = first.get(timeout=patient(15))
    assert second.get(timeout=patient(15)) == [which, *rest]
    assert which in (first.id, second.id)
    assert rest == ["31.01.", "2026-01-31 09:00:00+09:00"]


def test_by_hand_each_message_is_a_job_of_its_own() -> None:
    """Nobody planned it, so `planned_at` is `None`, and it runs each time."""
    first, second = Report.delay(date(2026, 2, 1)), Report.delay(date(2026, 2, 1))
    assert first.get(timeout=patient(10)) == [first.id, "01.02.", "None"]
    assert second.get(timeout=patient(10)) == [second.id, "01.02.", "None"]
