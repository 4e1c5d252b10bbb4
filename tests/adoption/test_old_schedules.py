"""Schedules of plain Celery as text: what is written means the same, and what cannot mean the same says why."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import BaseSchedule, crontab
from hypothesis import given, settings
from hypothesis import strategies as st

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.adoption.old_schedules import OldSchedule, old_schedules, written
from conventions.schedules.schedule import Schedule
from tests.workers import application

TASKS: dict[str, Any] = {}
ZONE = ZoneInfo("Asia/Tokyo")


class Report(ImmediateTask):
    """Write one report."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, day: str = "today", count: int = 1) -> None:
        """Nothing."""


@pytest.fixture(scope="module", autouse=True)
def _application() -> Iterator[None]:
    with application(broker_url="memory://", redis_url="redis://localhost:1") as app:
        TASKS.update({Report.name: app.tasks[Report.name]})
        yield


def convert(*entries: OldSchedule, old_zone: str = "Asia/Tokyo") -> str:
    """The text, with the task of this module."""
    return written(entries, TASKS, "Asia/Tokyo", old_zone)


def entry(when: Any, **more: Any) -> OldSchedule:
    """One of `Report`."""
    return OldSchedule(**{"name": "report", "task": Report.name, "when": when} | more)


def schedules(text: str) -> list[Schedule]:
    """What the text declares, when it is run."""
    found: dict[str, Any] = {}
    exec(compile(text, "beat_schedule.py", "exec"), found)  # what beat would import
    return list(found["SCHEDULE"])


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    """A field of a crontab: a star, a step, a number, a range, a list."""
    number = st.integers(low, high)
    ranges = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.integers(2, 20).map(lambda step: f"*/{step}")
    part = st.one_of(
        number.map(str), ranges, ranges.flatmap(lambda one: st.integers(1, 5).map(lambda step: f"{one}/{step}"))
    )
    return st.one_of(st.just("*"), steps, st.lists(part, min_size=1, max_size=3).map(",".join))


@settings(max_examples=200)
@given(
    minute=fields(0, 59),
    hour=fields(0, 23),
    day=st.one_of(fields(1, 28).map(lambda one: ("*", one)), fields(0, 6).map(lambda one: (one, "*"))),
    month=fields(1, 12),
    at=st.datetimes(datetime(2026, 1, 1), datetime(2028, 12, 31)),  # noqa: DTZ001  # the zone is added
)
def test_a_crontab_means_the_same(minute: str, hour: str, day: tuple[str, str], month: str, at: datetime) -> None:
    """Whether a minute is a slot: by Celery's sets, and by what is written."""
    old = crontab(minute=minute, hour=hour, day_of_week=day[0], day_of_month=day[1], month_of_year=month)
    (new,) = schedules(convert(entry(old)))
    at = at.replace(second=0, microsecond=0, tzinfo=ZONE)
    for moment in (at, at.replace(minute=min(old.minute), hour=min(old.hour))):
        is_slot = (
            moment.minute in old.minute
            and moment.hour in old.hour
            and moment.day in old.day_of_month
            and moment.month in old.month_of_year
            and (moment.weekday() + 1) % 7 in old.day_of_week
        )
        assert (new.when.latest_slot(moment, ZONE) == moment) is is_slot


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (crontab(minute="0", hour="9"), 'cron("0 9 * * *")'),
        (crontab(minute="*/15"), 'cron("*/15 * * * *")'),
        (crontab(minute="30", hour="8-18/2", day_of_week="mon-fri"), 'cron("30 8,10,12,14,16,18 * * 1-5")'),
        (crontab(minute="0", hour="0", day_of_month="1,15"), 'cron("0 0 1,15 * *")'),
        (crontab(minute="0", hour="0", day_of_month="1-7,15"), 'cron("0 0 1-7,15 * *")'),
        (30.0, "every(timedelta(seconds=30))"),
        (timedelta(hours=2), "every(timedelta(seconds=7200))"),
    ],
)
def test_what_is_written(when: Any, expected: str) -> None:
    """As a person would write it."""
    text = convert(entry(when))
    assert f"    Schedule('report', {expected}, Report)," in text.splitlines()
    assert len(schedules(text)) == 1


def test_a_whole_list() -> None:
    """Names that ours cannot have are changed; positional arguments get their names; options are said."""
    beat_schedule = {
        "every morning, at 9": {
            "task": Report.name,
            "schedule": crontab("0", "9"),
            "args": ("2026-01-01",),
            "options": {"queue": "q"},
        },
        "b": {"task": Report.name, "schedule": 60, "kwargs": {"count": 3}},
    }
    first, second = schedules(text := convert(*old_schedules(beat_schedule)))
    assert (first.name, dict(first.arguments)) == ("every-morning-at-9", {"day": "2026-01-01"})
    assert (second.name, dict(second.arguments)) == ("b", {"count": 3})
    assert "its options were {'queue': 'q'}" in text


@pytest.mark.parametrize(
    ("old", "reason"),
    [
        (entry(60, task="elsewhere"), "this application has no job of this name"),
        (entry(0.5), "write a whole number of seconds, at least 1"),
        (entry(crontab(day_of_month="1", day_of_week="1")), "wants both; in a cron either may match"),
        (entry(BaseSchedule()), "is neither a crontab nor an interval"),
        (entry(None), "is neither a crontab nor an interval"),
        (entry(60, kwargs={"nobody": 1}), "nobody"),
        (entry(60, kwargs={"count": "many"}), "count"),
        (entry(60, fault="it is disabled"), "it is disabled"),
    ],
)
def test_what_cannot_be_moved_says_why(old: OldSchedule, reason: str) -> None:
    """As a comment, so that the file can be read; the others are there."""
    text = convert(old, entry(60, name="other"))
    assert [one.name for one in schedules(text)] == ["other"]
    (comment,) = [line for line in text.splitlines() if line.strip().startswith("#")]
    assert comment.startswith(f"    # 'report', {old.task}: ")
    assert reason in comment


def test_times_of_another_zone_are_not_moved() -> None:
    """They would run at another moment; an interval has no zone."""
    text = convert(entry(crontab("0", "9")), entry(60, name="other"), old_zone="UTC")
    assert [one.name for one in schedules(text)] == ["other"]
    assert "its times are those of UTC, ours those of Asia/Tokyo (CONVENTIONS_TIMEZONE)" in text


def test_two_names_that_become_one() -> None:
    """The second one is said, and not lost."""
    text = convert(entry(60, name="a b"), entry(60, name="a-b"))
    assert [one.name for one in schedules(text)] == ["a-b"]
    assert "another one is called 'a-b'" in text


def test_slots_are_those_of_the_old_beat() -> None:
    """Celery's own answer to when the next one is due."""
    now = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
    old = crontab(minute="7", hour="*/5", nowfun=lambda: now.astimezone(ZONE))
    (new,) = schedules(convert(entry(old)))
    remaining = old.remaining_estimate(now.astimezone(ZONE))
    assert new.when.next_slot(now, ZONE) == now.astimezone(ZONE) + remaining
