"""What a beat sends, and when."""

import json
import warnings
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from conventions.app import ConventionsApp
from conventions.schedules.calendars import japanese_business_days
from conventions.schedules.cron import cron
from conventions.schedules.interval import every
from conventions.schedules.redbeat_entry import RedBeatEntry
from conventions.schedules.schedule import Schedule, planned_date
from conventions.schedules.schedule_actions import ScheduleActions
from conventions.schedules.schedule_store import BACK_WITHIN, Schedules
from conventions.schedules.scheduler import STANDBY_POLL
from tests.beat_fixtures import DAILY, Beat, Clock, Note, Sent, days


def test_a_slot_is_sent_once_with_its_planned_time(beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent) -> None:
    """Nothing before its time, one message at its time; arguments, id, actor and header come from the slot."""
    scheduler = beat(DAILY)
    assert scheduler.tick() == pytest.approx(5, abs=0.5)  # within max_interval
    clock.to("2026-11-25T08:59:58+09:00")
    assert scheduler.tick() == pytest.approx(2, abs=0.5)
    assert sent == []
    clock.to("2026-11-25T09:00:00.500+09:00")
    for _ in range(3):
        scheduler.tick()
    (message,) = sent
    assert message["kwargs"] == {"day": "2026-11-25"}
    assert message["x_planned_at"] == "2026-11-25T00:00:00+00:00"
    assert message["x_actor"] == "beat"
    assert message["x_schedule"] == "daily"
    assert message["id"] == DAILY.message_id(clock.now.replace(microsecond=0))
    (run,) = Schedules(app.store).history("daily", 10)
    assert (run.id, run.planned_at) == (message["id"], clock.now.replace(microsecond=0))


@pytest.mark.thorough
def test_a_year_of_business_days(beat: Beat, clock: Clock, sent: Sent) -> None:
    """Looked at each hour of a year, a schedule on business days sends one message for each of them."""
    entry = Schedule("open", cron("0 9 * * *", only=japanese_business_days), Note, {"day": planned_date})
    scheduler = beat(entry)
    scheduler.tick()
    first = clock.now
    for hour in range(1, 365 * 24):
        clock.now = first + timedelta(hours=hour)
        scheduler.tick()
    every_day = [date(2026, 11, 25) + timedelta(days=n) for n in range(365)]
    assert days(sent) == [day.isoformat() for day in every_day if japanese_business_days(day)]


def test_a_new_schedule_waits_for_its_first_slot(beat: Beat, clock: Clock, sent: Sent) -> None:
    """A schedule that is added at noon does not run for the morning."""
    clock.to("2026-11-25T12:00:00+09:00")
    beat(DAILY).tick()
    assert sent == []


def test_after_days_of_silence_the_latest_slot_runs_once(beat: Beat, clock: Clock, sent: Sent) -> None:
    """Three days without a beat are caught up by one message, for the last slot, with that slot's arguments."""
    first = beat(DAILY)
    first.tick()
    first.close()
    clock.to("2026-11-28T11:30:00+09:00")
    second = beat(DAILY)
    for _ in range(2):
        second.tick()
    assert days(sent) == ["2026-11-28"]
    assert sent[0]["x_planned_at"] == "2026-11-28T00:00:00+00:00"


def test_two_schedules_of_one_task_at_one_time_are_two_jobs(beat: Beat, clock: Clock, sent: Sent) -> None:
    """The schedule's name is in the idempotency key."""
    scheduler = beat(DAILY, Schedule("again", cron("0 9 * * *"), Note, {"day": planned_date}))
    scheduler.tick()
    clock.to("2026-11-25T09:00:00+09:00")
    scheduler.tick()
    assert len({message["x_key"] for message in sent}) == len({message["id"] for message in sent}) == 2


@pytest.mark.parametrize("step", ["2026-11-25T07:00:00+09:00", "2025-01-01T00:00:00+09:00"])
def test_a_clock_that_steps_back_repeats_nothing(step: str, beat: Beat, clock: Clock, sent: Sent) -> None:
    """Slots that were sent are not sent again when their time comes a second time."""
    scheduler = beat(DAILY)
    scheduler.tick()
    clock.to("2026-11-25T09:00:00+09:00")
    scheduler.tick()
    clock.to(step)
    scheduler.tick()
    clock.to("2026-11-25T09:00:00+09:00")
    scheduler.tick()
    clock.to("2026-11-26T09:00:00+09:00")
    scheduler.tick()
    assert days(sent) == ["2026-11-25", "2026-11-26"]


def test_a_pause_survives_a_restart_and_a_deploy(beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent) -> None:
    """Paused stays paused through restarts, removal and return; after `resume` the next slot is the first to run."""
    first = beat(DAILY)
    first.tick()
    actions = ScheduleActions(app, ZoneInfo("Asia/Tokyo"))
    actions.pause(DAILY, "u-42", "the database moves")
    first.close()
    clock.to("2026-11-25T09:00:00+09:00")
    for listed in ([DAILY], [], [DAILY]):
        scheduler = beat(*listed)
        scheduler.tick()
        scheduler.close()
    clock.to("2026-11-26T12:00:00+09:00")
    assert actions.resume(DAILY, "u-42")
    scheduler = beat(DAILY)
    scheduler.tick()
    assert sent == []
    clock.to("2026-11-27T09:00:00+09:00")
    scheduler.tick()
    assert days(sent) == ["2026-11-27"]


def test_redis_holds_what_the_file_says(beat: Beat, clock: Clock, app: ConventionsApp) -> None:
    """Removed schedules disappear from Redis and changed ones are updated, when a beat with the new file leads."""
    redis, prefix = app.store.redis, app.store.key("redbeat", "")
    first = beat(DAILY, Schedule("old", every(60), Note, {"day": planned_date}))
    first.tick()
    first.close()
    second = beat(Schedule("daily", cron("30 10 * * *"), Note, {"day": planned_date}))
    second.tick()
    assert 0 < redis.ttl(prefix + "old") <= BACK_WITHIN.total_seconds()
    assert redis.smembers(f"{prefix}:statics") == {b"daily"}
    definition = json.loads(redis.hget(prefix + "daily", "definition") or "")
    assert definition["schedule"] == {"__type__": "slots", "when": "30 10 * * *", "timezone": "Asia/Tokyo"}
    assert definition["kwargs"] == {"day": "planned_date()"}
    due = datetime.fromisoformat("2026-11-25T10:30:00+09:00").timestamp()
    assert redis.zrange(f"{prefix}:schedule", 0, -1, withscores=True) == [((prefix + "daily").encode(), due)]


def test_a_changed_time_is_no_missed_slot(beat: Beat, clock: Clock, sent: Sent) -> None:
    """After 09:00 ran, a file that says 10:30 is deployed at noon: it runs at 10:30 tomorrow, not at once."""
    first = beat(DAILY)
    first.tick()
    clock.to("2026-11-25T09:00:00+09:00")
    first.tick()
    clock.to("2026-11-25T11:59:58+09:00")
    first.tick()
    first.close()
    clock.to("2026-11-25T12:00:00+09:00")
    second = beat(Schedule("daily", cron("30 10 * * *"), Note, {"day": planned_date}))
    second.tick()
    assert days(sent) == ["2026-11-25"]
    clock.to("2026-11-26T10:30:00+09:00")
    second.tick()
    assert days(sent) == ["2026-11-25", "2026-11-26"]


def test_a_changed_time_counts_from_the_last_look(beat: Beat, clock: Clock, sent: Sent) -> None:
    """What passes while a deploy restarts the beats, by the new times, is sent by the rule: here the slot of 09:00."""
    first = beat(DAILY)
    first.tick()
    clock.to("2026-11-25T08:59:58+09:00")
    first.tick()
    first.close()
    clock.to("2026-11-25T09:00:03+09:00")
    weekdays = cron("0 8,9 * * *", only=japanese_business_days)
    second = beat(Schedule("daily", weekdays, Note, {"day": planned_date}, catch_up="all"))
    second.tick()
    assert [message["x_planned_at"] for message in sent] == ["2026-11-25T00:00:00+00:00"]


def test_a_schedule_that_comes_back_at_once_was_never_gone(beat: Beat, clock: Clock, sent: Sent) -> None:
    """A file that was away for a moment, or a deploy that is undone, loses no slot; after long it is a new schedule."""
    every_day = Schedule("daily", cron("0 9 * * *"), Note, {"day": planned_date}, catch_up="all")

    def swap(*listed: Schedule) -> None:
        scheduler = beat(*listed)
        scheduler.tick()
        scheduler.close()

    swap(every_day)
    clock.to("2026-11-25T08:59:58+09:00")
    swap()
    clock.to("2026-11-25T09:00:10+09:00")
    swap(every_day)
    assert days(sent) == ["2026-11-25"]
    clock.to("2026-11-26T08:00:00+09:00")
    swap()
    scheduler = beat(every_day)
    scheduler.app.store.redis.delete(Schedules(scheduler.app.store).key("daily"))  # its time has come
    clock.to("2026-11-26T12:00:00+09:00")
    scheduler.tick()
    assert days(sent) == ["2026-11-25"]


def test_a_beat_without_a_schedule_leaves_others_alone(
    beat: Beat, clock: Clock, sent: Sent, app: ConventionsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started in another folder it finds no file: it says so, never leads, and removes nothing."""
    first = beat(DAILY)
    first.tick()
    stray = beat()
    monkeypatch.setattr(type(app), "schedule_address", None)
    app.store.redis.delete(first._lock_name)
    assert stray.tick() == STANDBY_POLL
    assert stray.lock is None
    assert Schedules(app.store).names() == {"daily"}


def test_entries_are_celerys_and_redbeats(beat: Beat, clock: Clock) -> None:
    """The scheduler's `schedule` holds entries that answer as any schedule entry does."""
    scheduler = beat(DAILY, Schedule("often", every(10), Note, {"day": planned_date}))
    scheduler.tick()
    entries = scheduler.schedule
    assert list(entries) == ["daily", "often"]
    entry = entries["daily"]
    assert isinstance(entry, RedBeatEntry)
    assert entry.last_run_at == clock.now
    assert entry.task == "test_beat.Note"
    assert entry.key == Schedules(scheduler.app.store).key("daily")
    due, wait = entry.schedule.is_due(datetime.now(UTC) - timedelta(days=2))
    assert due
    assert 0 < wait <= 24 * 3600
    assert entry.schedule.is_due(datetime.now(UTC))[0] is False


def test_no_setting_is_left_to_redbeats_defaults(beat: Beat, app: ConventionsApp) -> None:
    """RedBeat finds its keys under the app's prefix, takes over within 35 s, and warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = beat(DAILY)
    assert app.redbeat_conf.key_prefix == app.store.key("redbeat", "")  # type: ignore[attr-defined]  # RedBeat's
    assert scheduler.lock_timeout + STANDBY_POLL <= 35
    assert scheduler.max_interval <= scheduler.lock_timeout / 3
    assert "0 entries" in beat().info
