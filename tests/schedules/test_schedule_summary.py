"""A schedule as people see it."""

from datetime import datetime, timedelta

from conventions.app import ConventionsApp
from conventions.schedules.cron import cron
from conventions.schedules.schedule import Schedule, planned_date
from conventions.schedules.schedule_actions import ScheduleActions
from conventions.schedules.schedule_summary import ScheduleSummary, summaries_of
from tests.beat_fixtures import DAILY, TOKYO, Beat, Clock, Note


def summary(app: ConventionsApp, entry: Schedule = DAILY) -> ScheduleSummary:
    """One schedule, now."""
    (found,) = summaries_of(app, [entry])
    return found


def tokyo(day: int, hour: int = 9) -> datetime:
    """A moment of November 2026."""
    return datetime(2026, 11, day, hour, tzinfo=TOKYO)


def test_next_and_last_run(beat: Beat, clock: Clock, app: ConventionsApp) -> None:
    """In the app's zone; before a beat has seen it only the next."""
    assert (summary(app).next_run_at, summary(app).last_run_at, summary(app).is_new) == (tokyo(25), None, True)
    scheduler = beat(DAILY)
    scheduler.tick()
    clock.now = tokyo(25) + timedelta(seconds=2.5)
    assert (summary(app).overdue, summary(app).is_new) == (None, False)
    scheduler.tick()
    found = summary(app)
    assert (found.next_run_at, found.last_run_at, found.lateness) == (tokyo(26), tokyo(25) + timedelta(seconds=2), 2.5)
    assert found.next_run_at is not None
    assert found.next_run_at.tzinfo == TOKYO


def test_a_slot_that_nobody_sends_is_overdue(beat: Beat, clock: Clock, app: ConventionsApp) -> None:
    """Since its planned time; not what will not be sent any more, and not while it is paused."""
    never_late = Schedule("strict", cron("0 9 * * *"), Note, {"day": planned_date}, catch_up="none")
    beat(DAILY, never_late).tick()
    clock.to("2026-11-25T09:10:00+09:00")
    assert summary(app).overdue == 600
    assert summary(app, never_late).overdue is None
    actions = ScheduleActions(app, TOKYO)
    actions.pause(DAILY, "u-42", "why")
    assert summary(app).overdue is None
    actions.pause(DAILY, "u-42", "why", tokyo(25, 12))
    assert summary(app).overdue is None
    clock.to("2026-11-25T13:00:00+09:00")  # nobody lifts it, and the morning's slot is not caught up
    assert summary(app).overdue is None
    clock.to("2026-11-26T09:01:00+09:00")
    assert summary(app).overdue == 60


def test_a_pause_does_not_make_a_schedule_known(clock: Clock, app: ConventionsApp) -> None:
    """Only a beat that has read it does."""
    actions = ScheduleActions(app, TOKYO)
    actions.pause(DAILY, "u-42", "why")
    actions.resume(DAILY, "u-42")
    assert summary(app).is_new


def test_a_paused_schedule_runs_next_after_its_pause(clock: Clock, app: ConventionsApp) -> None:
    """Or not at all until somebody resumes it."""
    actions = ScheduleActions(app, TOKYO)
    actions.pause(DAILY, "u-42", "why")
    assert summary(app).next_run_at is None
    actions.pause(DAILY, "u-42", "why", tokyo(27, 12))
    assert summary(app).next_run_at == tokyo(28)


def test_a_clock_that_stepped_back_is_taken_into_account(beat: Beat, clock: Clock, app: ConventionsApp) -> None:
    """What ran already does not run next."""
    scheduler = beat(DAILY)
    scheduler.tick()
    clock.now = tokyo(25)
    scheduler.tick()
    clock.now = tokyo(25, 7)
    assert summary(app).next_run_at == tokyo(26)


def test_a_file_that_beat_has_not_read_differs(beat: Beat, app: ConventionsApp) -> None:
    """In its time, its task, its arguments or its rules."""
    beat(DAILY).tick()
    assert summary(app).other_version is False
    for entry in (
        Schedule("daily", cron("1 9 * * *"), Note, {"day": planned_date}),
        Schedule("daily", cron("0 9 * * *"), Note, {"day": "2026-01-01"}),
        Schedule("daily", cron("0 9 * * *"), Note, {"day": planned_date}, within=60),
    ):
        assert summary(app, entry).other_version
    assert summary(app, Schedule("new", cron("0 9 * * *"), Note, {"day": planned_date})).other_version is False
