"""What a beat does when Redis, the broker, its lock or a schedule fails."""

from datetime import date, datetime

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from conventions.app import ConventionsApp
from conventions.core.errors import BrokerUnavailable, ConfigurationError
from conventions.schedules.cron import cron
from conventions.schedules.dispatch import Dispatch
from conventions.schedules.schedule import Schedule, planned_date
from conventions.schedules.schedule_store import Schedules
from conventions.schedules.scheduler import RETRY_EVERY, STANDBY_POLL, Scheduler
from tests.beat_fixtures import DAILY, Beat, Clock, Note, Sent, days, raising


def test_a_failed_send_does_not_lose_the_slot(
    beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the broker does not answer the slot stays due, and is sent with its planned time when it does."""
    scheduler = beat(DAILY)
    scheduler.tick()
    clock.to("2026-11-25T09:00:00+09:00")
    with monkeypatch.context() as broken:
        broken.setattr(Dispatch, "_send", raising(BrokerUnavailable("nobody there")))
        assert [scheduler.tick() for _ in range(3)] == [RETRY_EVERY] * 3
        assert Schedules(app.store).history("daily", 10) == []
    clock.to("2026-11-25T09:00:20+09:00")
    scheduler.tick()
    assert days(sent) == ["2026-11-25"]
    assert sent[0]["x_planned_at"] == "2026-11-25T00:00:00+00:00"


class Figures:
    """What an argument is computed from; it may be away."""

    away = False


def reported(planned: datetime) -> date:
    """An argument that cannot be computed while the figures are away."""
    if Figures.away:
        raise LookupError("no figures")
    return planned.date()


def test_one_schedule_that_fails_does_not_hold_up_the_others(
    beat: Beat, clock: Clock, sent: Sent, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its failure is logged, it waits longer from try to try, and the others go on."""
    faulty = Schedule("faulty", cron("0 9 * * *"), Note, {"day": reported})
    scheduler = beat(faulty, DAILY)
    scheduler.tick()
    monkeypatch.setattr(Figures, "away", True)
    clock.to("2026-11-25T09:00:00+09:00")
    waits = [scheduler.tick() for _ in range(3)]
    assert [message["x_schedule"] for message in sent] == ["daily"]
    assert [record.message for record in caplog.records if "cannot be sent" in record.message] == [
        "beat: faulty cannot be sent, next try in 1 s: LookupError: no figures"
    ]
    assert 0 < max(waits) <= 1  # the wait of a look that took a second itself is 0


class DaysInAFile:
    """A calendar whose file can be moved away."""

    moved = False

    def __contains__(self, day: object) -> bool:
        if self.moved:
            raise FileNotFoundError("calendar.csv")
        return True


def test_a_calendar_that_fails_does_not_hold_up_the_others(
    beat: Beat, clock: Clock, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    """A schedule whose next slot cannot be told is logged, and the others go on."""
    calendar = DaysInAFile()
    scheduler = beat(Schedule("faulty", cron("0 9 * * *", only=calendar), Note, {"day": planned_date}), DAILY)
    calendar.moved = True
    scheduler.tick()
    clock.to("2026-11-25T09:00:00+09:00")
    scheduler.tick()
    assert [message["x_schedule"] for message in sent] == ["daily"]
    assert "beat: the next slot of faulty cannot be told" in [record.message for record in caplog.records]


def test_a_second_beat_stands_by_and_takes_over_at_once(beat: Beat, clock: Clock, sent: Sent) -> None:
    """Of two beats one sends; when it ends in order the other leads at its next look."""
    first, second = beat(DAILY), beat(DAILY)
    first.tick()
    assert second.tick() == STANDBY_POLL
    clock.to("2026-11-25T09:00:00+09:00")
    second.tick()
    assert sent == []
    first.tick()
    assert days(sent) == ["2026-11-25"]
    first.close()
    clock.to("2026-11-26T09:00:00+09:00")
    second.tick()
    assert days(sent) == ["2026-11-25", "2026-11-26"]


def test_a_beat_that_lost_its_lock_stands_by(beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent) -> None:
    """A leader whose lock lapsed sends nothing more and leads again when the lock is free."""
    first, second = beat(DAILY), beat(DAILY)
    first.tick()
    app.store.redis.delete(str(first._lock_name))  # as if it lapsed while the first was stopped
    second.tick()
    clock.to("2026-11-25T09:00:00+09:00")
    assert first.tick() == STANDBY_POLL
    assert sent == []
    second.tick()
    second.close()
    first.tick()
    assert days(sent) == ["2026-11-25"]


def test_a_lock_lost_within_a_tick_gives_one_id(beat: Beat, clock: Clock, sent: Sent) -> None:
    """Two leaders that send one slot send the same message: same id, same key, same arguments."""
    first, second = beat(DAILY), beat(DAILY)
    first.tick()
    clock.to("2026-11-25T09:00:00+09:00")
    slot = clock.now.astimezone(first._zone)
    for leader in (first, second):
        leader._dispatch._send(DAILY, slot, clock.now)
    one, other = sent
    assert (one["id"], one["x_key"], one["kwargs"]) == (other["id"], other["x_key"], other["kwargs"])


def test_a_flushed_redis_is_filled_again(beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent) -> None:
    """When the state is lost, slots count from then on."""
    scheduler = beat(DAILY)
    scheduler.tick()
    app.store.redis.delete(*app.store.redis.keys(app.store.key("*")))
    clock.to("2026-11-25T10:00:00+09:00")
    assert scheduler.tick() == STANDBY_POLL  # the lock is gone as well
    scheduler.tick()
    clock.to("2026-11-26T09:00:00+09:00")
    scheduler.tick()
    assert days(sent) == ["2026-11-26"]


def test_a_lost_entry_is_made_again(beat: Beat, clock: Clock, app: ConventionsApp, sent: Sent) -> None:
    """An entry that somebody deleted comes back without ending the beat."""
    scheduler = beat(DAILY)
    scheduler.tick()
    app.store.redis.delete(Schedules(app.store).key("daily"))
    assert scheduler.tick() <= RETRY_EVERY
    scheduler.tick()
    clock.to("2026-11-25T09:00:00+09:00")
    scheduler.tick()
    assert days(sent) == ["2026-11-25"]


def test_an_unreachable_redis_does_not_end_the_beat(
    beat: Beat, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It waits, says so, and goes on; closing without Redis does not fail either."""
    scheduler = beat(DAILY)
    scheduler.tick()
    monkeypatch.setattr(scheduler.lock, "reacquire", raising(RedisConnectionError("gone")))
    monkeypatch.setattr(scheduler.lock, "owned", raising(RedisConnectionError("gone")))
    assert scheduler.tick() == RETRY_EVERY
    scheduler.close()
    assert [record.message for record in caplog.records] == [
        "beat: Redis does not answer, trying again: gone",
        "beat: the lock is left to lapse: gone",
    ]


def test_a_faulty_schedule_ends_beat_with_one_line(
    app: ConventionsApp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The banner lets click print it; a quiet beat prints it itself: status 2, no traceback."""
    monkeypatch.setattr("conventions.schedules.scheduler.load_schedule", raising(ConfigurationError(["no such file"])))
    with pytest.raises(ConfigurationError):
        Scheduler(app, lazy=True)
    with pytest.raises(SystemExit) as ended:
        Scheduler(app)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "Error: no such file\n"
