"""What a beat does with slots that are late, overlap, are paused or cannot be made, and what it leaves in the audit."""

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from conventions.app import ConventionsApp
from conventions.core.errors import BrokerUnavailable
from conventions.schedules.calendars import japanese_business_days
from conventions.schedules.cron import cron
from conventions.schedules.dispatch import AT_ONCE, TRIES, Dispatch
from conventions.schedules.interval import every
from conventions.schedules.schedule import Schedule, planned_date, previous_day, week_of
from conventions.schedules.schedule_actions import ScheduleActions, StillRuns
from conventions.schedules.schedule_store import Schedules
from conventions.schedules.scheduler import RETRY_EVERY
from tests.beat_fixtures import DAILY, TOKYO, Beat, Clock, Note, Sent, days, raising

CATCHING_UP = {
    rule: Schedule("daily", cron("0 9 * * *"), Note, {"day": planned_date}, catch_up=rule)
    for rule in ("latest", "none", "all")
}
NIGHTLY = cron("0 9 * * *", only=japanese_business_days)


def history(app: ConventionsApp, name: str = "daily") -> list[tuple[str, int, str]]:
    """What became of slots, the oldest first: what, how many, and the day of the last of them."""
    lines = reversed(Schedules(app.store).history(name, 100))
    return [(one.what, one.count, f"{one.planned_at.astimezone(TOKYO):%d}" if one.planned_at else "") for one in lines]


def audit_entries(app: ConventionsApp) -> list[dict[str, Any]]:
    """The audit entries in the journal."""
    entries: Any = app.store.redis.xrange(app.store.key("journal"))
    return [json.loads(fields[b"deed"]) for _, fields in entries if b"deed" in fields]


# The document's schedules.


@pytest.mark.thorough
def test_the_documents_schedules_over_a_year(beat: Beat, clock: Clock, sent: Sent) -> None:
    """Each day 02:00 and 09:00, each Monday 10:00, in Tokyo, with the day and the week that they are for; none twice."""
    scheduler = beat(
        Schedule("clean-up", cron("0 2 * * *"), Note, {"day": planned_date}),
        Schedule("daily-report", cron("0 9 * * *"), Note, {"day": previous_day}),
        Schedule("weekly-report", cron("0 10 * * MON"), Note, {"day": week_of}),
        Schedule("leap-day", cron("0 0 29 2 *"), Note, {"day": planned_date}),
    )
    clock.to("2027-12-31T23:59:00+09:00")
    scheduler.tick()
    first = clock.now
    for hour in range(366 * 24 + 1):
        clock.now = first + timedelta(hours=hour, minutes=1)
        scheduler.tick()
    year = [date(2028, 1, 1) + timedelta(days=n) for n in range(366)]
    found: dict[str, list[tuple[str, str]]] = {}
    for message in sent:
        planned = datetime.fromisoformat(message["x_planned_at"]).astimezone(TOKYO)
        found.setdefault(message["x_schedule"], []).append((f"{planned:%Y-%m-%d %H:%M}", message["kwargs"]["day"]))
    day = timedelta(days=1)
    assert found == {
        "clean-up": [(f"{one} 02:00", f"{one}") for one in year],
        "daily-report": [(f"{one} 09:00", f"{one - day}") for one in year],
        "weekly-report": [(f"{one} 10:00", f"{one}") for one in year if one.weekday() == 0],
        "leap-day": [("2028-02-29 00:00", "2028-02-29")],
    }
    assert max(Counter(message["id"] for message in sent).values()) == 1


def test_business_days_around_holidays(beat: Beat, clock: Clock, sent: Sent) -> None:
    """In Golden Week and around New Year only on days on which offices are open; never on the others."""
    closed = Schedule("closed", cron("0 9 * * *", not_on=japanese_business_days), Note, {"day": planned_date})
    scheduler = beat(Schedule("open", NIGHTLY, Note, {"day": planned_date}), closed)
    for begin, end in (("2026-04-28", "2026-05-11"), ("2026-12-28", "2027-01-06")):
        clock.to(f"{begin}T00:00:00+09:00")
        scheduler._reconcile()
        for name in ("open", "closed"):
            Schedules(scheduler.app.store).advance(name, clock.now, None)
        last = datetime.fromisoformat(f"{end}T00:00:00+09:00")
        while clock.now < last:
            scheduler.tick()
            clock.now += timedelta(hours=1)
    by_name = {name: [one["kwargs"]["day"] for one in sent if one["x_schedule"] == name] for name in ("open", "closed")}
    assert by_name["open"] == [
        "2026-04-28", "2026-04-30", "2026-05-01", "2026-05-07", "2026-05-08",
        "2026-12-28", "2026-12-29", "2026-12-30", "2027-01-04", "2027-01-05",
    ]  # fmt: skip
    assert by_name["closed"][:8] == ["2026-04-29", *(f"2026-05-0{day}" for day in (2, 3, 4, 5, 6, 9)), "2026-05-10"]
    assert by_name["closed"][8:] == ["2026-12-31", "2027-01-01", "2027-01-02", "2027-01-03"]


# Missed slots.


AFTER_THREE_DAYS: dict[str, list[Any]] = {
    "latest": [("missed", 2, "27"), ("sent", 1, "28")],
    "all": [("sent", 1, "26"), ("sent", 1, "27"), ("sent", 1, "28")],
    "none": [("missed", 3, "28")],
}


@pytest.mark.parametrize("rule", AFTER_THREE_DAYS)
def test_three_days_without_a_beat(rule: str, beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent) -> None:
    """Each rule sends its slots with their planned times, says what it left out, and then goes on as usual."""
    clock.to("2026-11-25T09:00:00+09:00")
    first = beat(CATCHING_UP[rule])
    first.tick()
    first.close()
    clock.to("2026-11-28T11:30:00+09:00")
    second = beat(CATCHING_UP[rule])
    for _ in range(3):
        second.tick()
    expected = [day for what, _, day in AFTER_THREE_DAYS[rule] if what == "sent"]
    assert days(sent) == [f"2026-11-{day}" for day in expected]
    assert [message["x_planned_at"] for message in sent] == [f"2026-11-{day}T00:00:00+00:00" for day in expected]
    assert history(app) == AFTER_THREE_DAYS[rule]
    clock.to("2026-11-29T09:00:01+09:00")
    second.tick()
    assert days(sent)[-1] == "2026-11-29"


def test_a_window_says_how_late_a_slot_may_be(beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent) -> None:
    """What is older is missed, by every rule."""
    clock.to("2026-11-25T09:00:00+09:00")
    window = Schedule("daily", cron("0 9 * * *"), Note, {"day": planned_date}, catch_up="all", within=26 * 3600)
    only_soon = Schedule("soon", cron("0 9 * * *"), Note, {"day": planned_date}, within=timedelta(hours=1))
    beat(window, only_soon).tick()
    clock.to("2026-11-28T10:30:00+09:00")
    scheduler = beat(window, only_soon)
    app.store.redis.delete(scheduler._lock_name)
    scheduler.tick()
    assert [(one["x_schedule"], one["kwargs"]["day"]) for one in sent] == [
        ("daily", "2026-11-27"), ("daily", "2026-11-28"),
    ]  # fmt: skip
    assert history(app) == [("missed", 1, "26"), ("sent", 1, "27"), ("sent", 1, "28")]
    assert history(app, "soon") == [("missed", 3, "28")]


def test_a_long_backlog_lets_others_through(beat: Beat, clock: Clock, sent: Sent) -> None:
    """Of many slots to catch up some are sent in one look, in order; the others' turn comes between."""
    often = Schedule("often", every(60), Note, {"day": planned_date}, catch_up="all")
    beat(often, DAILY).tick()
    clock.to("2026-11-25T10:10:00+09:00")
    scheduler = beat(often, DAILY)
    scheduler.app.store.redis.delete(scheduler._lock_name)
    assert scheduler.tick() == 0
    assert Counter(message["x_schedule"] for message in sent) == {"often": AT_ONCE, "daily": 1}
    while scheduler.tick() == 0:
        pass
    planned = [message["x_planned_at"] for message in sent if message["x_schedule"] == "often"]
    start = datetime(2026, 11, 24, 23, tzinfo=UTC)
    assert planned == [(start + timedelta(minutes=n)).isoformat() for n in range(1, 131)]


def test_a_broker_that_refuses_around_a_slot(
    beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For 20 s each look fails; then each schedule's slots are sent, by its rule, and `none` counts them as on time."""
    entries = [
        Schedule(rule, every(8), Note, {"day": planned_date}, catch_up=rule) for rule in ("latest", "none", "all")
    ]
    scheduler = beat(*entries)
    scheduler.tick()
    start = clock.now
    with monkeypatch.context() as broken:
        broken.setattr(Dispatch, "_send", raising(BrokerUnavailable("nobody there")))
        for second in range(8, 28):
            clock.now = start + timedelta(seconds=second)
            assert scheduler.tick() == RETRY_EVERY
    scheduler.tick()
    by_name = Counter(message["x_schedule"] for message in sent)
    assert by_name == {"latest": 1, "none": 1, "all": 3}
    assert history(app, "latest")[0][:2] == ("missed", 2)
    assert Schedules(app.store).history("latest", 100)[-1].note == "its sending had begun, it may have run"


def test_a_line_of_several_slots_names_the_one_that_may_have_run(
    beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker did not answer when the first of them was sent, and beat looks again only after the third."""
    scheduler = beat(Schedule("latest", every(8), Note, {"day": planned_date}))
    scheduler.tick()
    start = clock.now
    with monkeypatch.context() as broken:
        broken.setattr(Dispatch, "_send", raising(BrokerUnavailable("nobody there")))
        clock.now = start + timedelta(seconds=8)
        scheduler.tick()
    clock.now = start + timedelta(seconds=35)
    scheduler.tick()
    line = Schedules(app.store).history("latest", 100)[-1]
    begun = (start + timedelta(seconds=8)).astimezone(TOKYO).isoformat()
    assert (line.count, line.note) == (3, f"the sending of {begun} had begun, it may have run")
    assert len(sent) == 1


# Which message it is.


def test_a_slot_is_as_old_as_its_first_try(
    beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what a beat sends that was frozen for longer than claims are kept is not run a second time, but a dead letter."""
    scheduler = beat(DAILY)
    scheduler.tick()
    clock.to("2026-11-25T09:00:00+09:00")
    with monkeypatch.context() as broken:
        broken.setattr(Dispatch, "_send", raising(BrokerUnavailable("nobody there")))
        scheduler.tick()
    begun: Any = app.store.redis.hget(Schedules(app.store).key("daily"), "begun")
    slot, first_try = map(int, begun.split(b":"))
    assert slot == clock.now.timestamp()
    scheduler.tick()
    assert datetime.fromisoformat(sent[0]["x_enqueued_at"]).timestamp() == pytest.approx(first_try / 1000, abs=0.01)


def test_a_beat_that_lost_its_lock_within_a_look_sends_nothing_more(
    beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is asked for in the step that begins a slot."""
    first, second = beat(DAILY), beat(DAILY)
    first.tick()
    clock.to("2026-11-25T09:00:00+09:00")
    read = first.schedules.read

    def read_and_freeze(names: Any) -> Any:
        found = read(names)
        app.store.redis.delete(first._lock_name)
        second.tick()
        return found

    monkeypatch.setattr(first.schedules, "read", read_and_freeze)
    first.tick()
    assert first.lock is None
    assert days(sent) == ["2026-11-25"]


def test_two_files_mean_one_slot(beat: Beat, clock: Clock, sent: Sent) -> None:
    """A beat with other arguments for a slot that another one has sent sends the same job, which runs once."""
    slot = datetime(2026, 11, 25, 9, tzinfo=TOKYO)
    for entry in (DAILY, Schedule("daily", cron("0 9 * * *"), Note, {"day": "2026-01-01"})):
        beat(entry)._dispatch._send(entry, slot, clock.now)
    one, other = sent
    assert (one["id"], one["x_key"]) == (other["id"], other["x_key"])
    assert one["kwargs"] != other["kwargs"]


class Slow:
    """A calendar that takes its time; the lock lapses meanwhile."""

    def __init__(self, app: ConventionsApp) -> None:
        self.app = app
        self.lock = ""

    def __contains__(self, day: object) -> bool:
        if self.lock:
            self.app.store.redis.delete(self.lock)
        return True


def test_a_slow_calendar_does_not_keep_beat_from_leading(
    beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent
) -> None:
    """A lock that lapsed within a look, and that nobody has taken, is taken back when a slot begins."""
    calendar = Slow(app)
    scheduler = beat(Schedule("slow", cron("0 9 * * *", only=calendar), Note, {"day": planned_date}))
    scheduler.tick()
    calendar.lock = scheduler._lock_name
    clock.to("2026-11-25T09:00:00+09:00")
    scheduler.tick()
    assert days(sent) == ["2026-11-25"]


# Overlap.


def test_a_slot_is_skipped_while_the_last_run_has_not_ended(
    beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent
) -> None:
    """A message that waits counts as a run; when it is gone the next slot is sent; skipped slots are not caught up."""
    entry = Schedule("daily", cron("0 9 * * *"), Note, {"day": planned_date}, overlap="skip", catch_up="all")
    scheduler = beat(entry)
    scheduler.tick()
    for day in (25, 26, 27):
        clock.to(f"2026-11-{day}T09:00:00+09:00")
        scheduler.tick()
    first = entry.message_id(datetime(2026, 11, 25, 9, tzinfo=TOKYO))
    assert history(app) == [("sent", 1, "25"), ("skipped", 2, "27")]
    assert Schedules(app.store).history("daily", 1)[0].note == first
    actions = ScheduleActions(app, TOKYO)
    with pytest.raises(StillRuns) as refused:
        actions.run_now(entry, "u-42")
    assert refused.value.id == first
    by_hand = actions.run_now(entry, "u-42", beside=True)
    app.broker.drop("scheduled")
    clock.to("2026-11-28T09:00:00+09:00")
    scheduler.tick()
    assert [message["id"] for message in sent] == [
        first, by_hand.id, entry.message_id(datetime(2026, 11, 28, 9, tzinfo=TOKYO)),
    ]  # fmt: skip


# Pauses.


def test_a_pause_ends_by_itself(beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent) -> None:
    """At its time: slots before it are not caught up, the next one runs, and the audit says who lifted it."""
    scheduler = beat(CATCHING_UP["all"])
    scheduler.tick()
    until = datetime(2026, 11, 27, 8, tzinfo=TOKYO)
    ScheduleActions(app, TOKYO).pause(CATCHING_UP["all"], "u-42", "the database moves", until)
    for moment in ("2026-11-25T09:00:00+09:00", "2026-11-26T09:00:00+09:00", "2026-11-27T07:59:57+09:00"):
        clock.to(moment)
        wait = scheduler.tick()
    assert wait == pytest.approx(3, abs=0.5)
    assert sent == []
    clock.to("2026-11-27T08:00:00+09:00")
    assert scheduler.tick() == 0
    assert Schedules(app.store).read(["daily"])[1]["daily"].pause is None
    clock.to("2026-11-27T09:00:00+09:00")
    scheduler.tick()
    assert days(sent) == ["2026-11-27"]
    assert history(app) == [("paused", 2, "26"), ("sent", 1, "27")]
    assert [(entry["actor"], entry["action"]) for entry in audit_entries(app)] == [
        ("beat", "schedule add"), ("u-42", "schedule pause"), ("beat", "schedule resume"),
    ]  # fmt: skip
    assert audit_entries(app)[2]["before"] == {
        "reason": "the database moves",
        "until": until.astimezone(UTC).isoformat(),
    }


def test_a_pause_that_was_over_while_no_beat_ran(beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent) -> None:
    """The slots after its end are caught up by the schedule's rule, those before it are not."""
    first = beat(CATCHING_UP["all"])
    first.tick()
    until = datetime(2026, 11, 26, 12, tzinfo=TOKYO)
    ScheduleActions(app, TOKYO).pause(CATCHING_UP["all"], "u-42", "the database moves", until)
    first.close()
    clock.to("2026-11-28T12:00:00+09:00")
    second = beat(CATCHING_UP["all"])
    while second.tick() == 0:
        pass
    assert days(sent) == ["2026-11-27", "2026-11-28"]
    assert history(app)[0] == ("paused", 2, "26")


# Slots whose message cannot be made.


class Figures:
    """Days without figures, from which an argument cannot be computed."""

    missing: ClassVar[set[int]] = set()
    error: ClassVar[Exception | None] = None


def reported(planned: datetime) -> date:
    """The day, if there are figures for it."""
    if Figures.error is not None:
        raise Figures.error
    if planned.day in Figures.missing:
        raise LookupError(f"no figures for the {planned.day}th")
    return planned.date()


def test_a_slot_that_cannot_be_made_is_given_up_when_others_wait_behind_it(
    beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried some times, its fault can be seen meanwhile, and then it is recorded, and the others are sent."""
    scheduler = beat(Schedule("daily", cron("0 9 * * *"), Note, {"day": reported}, catch_up="all"))
    scheduler.tick()
    monkeypatch.setattr(Figures, "missing", {26})
    clock.to("2026-11-28T11:00:00+09:00")
    for tries in range(1, TRIES):
        scheduler.tick()
        assert days(sent) == ["2026-11-25"]
        assert Schedules(app.store).read(["daily"])[1]["daily"].fault == "LookupError: no figures for the 26th"
        scheduler.tick()  # too soon for another try
        assert scheduler._dispatch._failures["daily"].tries == tries
        clock.now += timedelta(minutes=1)
    scheduler.tick()
    scheduler.tick()
    assert days(sent) == ["2026-11-25", "2026-11-27", "2026-11-28"]
    assert history(app) == [("sent", 1, "25"), ("failed", 1, "26"), ("sent", 1, "27"), ("sent", 1, "28")]
    assert Schedules(app.store).read(["daily"])[1]["daily"].fault is None
    failed = next(one for one in Schedules(app.store).history("daily", 9) if one.what == "failed")
    assert failed.note == "LookupError: no figures for the 26th"


@pytest.mark.parametrize("error", [RedisConnectionError("theirs"), BrokerUnavailable("theirs"), KeyError("x")])
def test_whatever_a_function_raises_holds_up_only_its_schedule(
    error: Exception, *, beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also an error that beat itself may meet: of a Redis that the team's function asks, or of something it sends."""
    scheduler = beat(Schedule("theirs", cron("0 9 * * *"), Note, {"day": reported}), DAILY)
    scheduler.tick()
    monkeypatch.setattr(Figures, "error", error)
    clock.to("2026-11-25T09:00:00+09:00")
    scheduler.tick()
    assert [message["x_schedule"] for message in sent] == ["daily"]
    assert "theirs" in str(Schedules(app.store).read(["theirs"])[1]["theirs"].fault) or isinstance(error, KeyError)
    monkeypatch.setattr(Figures, "error", None)
    clock.now += timedelta(seconds=2)
    scheduler.tick()
    assert [message["x_schedule"] for message in sent] == ["daily", "theirs"]


class Flaky:
    """A calendar that can be away."""

    away = False

    def __contains__(self, day: object) -> bool:
        if self.away:
            raise OSError("calendar.csv")
        return True


def test_a_fault_that_has_passed_is_taken_back(beat: Beat, clock: Clock, app: ConventionsApp) -> None:
    """Not only when the next slot is sent, which may be in a month."""
    calendar = Flaky()
    scheduler = beat(Schedule("flaky", cron("0 9 1 * *", only=calendar), Note, {"day": planned_date}))
    scheduler.tick()

    def fault() -> str | None:
        return Schedules(app.store).read(["flaky"])[1]["flaky"].fault

    calendar.away = True
    scheduler.tick()
    assert fault() == "OSError: calendar.csv"
    calendar.away = False
    clock.now += timedelta(seconds=2)
    scheduler.tick()
    assert fault() is None


def test_a_slot_that_failed_is_called_so_when_another_takes_its_place(
    beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `latest` only the last slot is sent: the one before was not late, but could not be made."""
    scheduler = beat(Schedule("daily", cron("0 9 * * *"), Note, {"day": reported}))
    scheduler.tick()
    monkeypatch.setattr(Figures, "missing", {26})
    for day in (25, 26, 28):
        clock.to(f"2026-11-{day}T09:00:00+09:00")
        scheduler.tick()
    assert history(app) == [("sent", 1, "25"), ("failed", 1, "26"), ("missed", 1, "27"), ("sent", 1, "28")]


def test_what_is_missed_before_a_slot_that_fails_is_accounted_for(
    beat: Beat, clock: Clock, app: ConventionsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of that slot."""
    entry = Schedule("daily", cron("0 9 * * *"), Note, {"day": reported}, catch_up="all", within=timedelta(days=1))
    scheduler = beat(entry)
    scheduler.tick()
    monkeypatch.setattr(Figures, "missing", {28})
    clock.to("2026-11-28T11:00:00+09:00")
    scheduler.tick()
    assert history(app) == [("missed", 3, "27")]


# Changed times.


def test_a_slot_that_waits_for_a_mended_function_survives_the_deploy(
    beat: Beat, clock: Clock, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mend may come with other times: what is due by those since the cursor is sent."""
    first = beat(Schedule("daily", cron("0 9 * * *"), Note, {"day": reported}))
    first.tick()
    monkeypatch.setattr(Figures, "missing", {25})
    clock.to("2026-11-25T09:00:00+09:00")
    first.tick()
    clock.to("2026-11-25T09:05:00+09:00")
    first.tick()
    first.close()
    monkeypatch.setattr(Figures, "missing", set())
    beat(Schedule("daily", cron("0 9 * * MON-SUN"), Note, {"day": reported})).tick()
    assert days(sent) == ["2026-11-25"]


def test_times_that_were_changed_in_a_long_outage_count_from_its_end(
    beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent
) -> None:
    """Nobody planned by them then; the history says what was passed over."""
    first = beat(DAILY)
    first.tick()
    first.close()
    clock.to("2026-11-28T12:00:00+09:00")
    beat(Schedule("daily", cron("0 10 * * *"), Note, {"day": planned_date}, catch_up="all")).tick()
    assert sent == []
    assert history(app) == [("missed", 4, "28")]


# The audit of deploys.


def test_a_deploy_leaves_audit_entries(beat: Beat, clock: Clock, app: ConventionsApp) -> None:
    """A schedule that is added, changed or removed; nothing where nothing changed."""
    old = Schedule("old", every(60), Note, {"day": planned_date})
    changed = Schedule("daily", cron("30 10 * * *"), Note, {"day": planned_date}, overlap="skip")
    for listed in ([DAILY, old], [DAILY, old], [changed]):
        scheduler = beat(*listed)
        scheduler.tick()
        scheduler.close()
    found = [(entry["actor"], entry["action"], entry["target"]) for entry in audit_entries(app)]
    assert found == [
        ("beat", "schedule add", "daily"), ("beat", "schedule add", "old"),
        ("beat", "schedule remove", "old"), ("beat", "schedule change", "daily"),
    ]  # fmt: skip
    change = audit_entries(app)[-1]
    assert change["before"]["schedule"]["when"] == "0 9 * * *"
    assert change["after"]["schedule"]["when"] == "30 10 * * *"
    assert (change["before"]["rules"]["overlap"], change["after"]["rules"]["overlap"]) == ("allow", "skip")


def test_a_clock_that_was_far_ahead_is_named(
    beat: Beat, clock: Clock, app: ConventionsApp, caplog: pytest.LogCaptureFixture
) -> None:
    """Slots that another clock has sent are not sent again; the log says until when nothing runs."""
    scheduler = beat(DAILY)
    scheduler.tick()
    clock.to("2026-12-25T09:00:00+09:00")
    scheduler.tick()
    scheduler.close()
    clock.to("2026-11-25T09:00:00+09:00")
    beat(DAILY).tick()
    assert "the clock of Redis has stepped back: daily runs again after 2026-12-25T09:00:00+09:00" in caplog.text
