"""What people do to a schedule: pause, resume, run now, each with a row in the audit (R10, R22)."""

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest

from conventions import ScheduledTask
from conventions.app import ConventionsApp
from conventions.core.errors import BrokerUnavailable
from conventions.pauses.pause_actions import PausedAgain
from conventions.recording.recorder import Recorder
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.schedules.cron import cron
from conventions.schedules.schedule import Schedule, planned_date
from conventions.schedules.schedule_actions import JustRun, ScheduleActions, StillRuns
from conventions.schedules.schedule_state import Begun, Run
from conventions.schedules.schedule_store import SAME_MOMENT, Schedules
from tests.beat_fixtures import TOKYO, Note, Sent, days
from tests.support import patient, wait_until


class OfDay(ScheduledTask):
    """Report one day, once."""

    name = "test_schedule_actions.OfDay"
    idempotent_on = ("day",)

    def run(self, day: date) -> None: ...


DAILY = Schedule("daily", cron("0 9 * * *"), OfDay, {"day": planned_date})
ALONE = Schedule("alone", cron("0 9 * * *"), Note, {"day": planned_date}, overlap="skip")


@pytest.fixture
def actions(app: ConventionsApp) -> ScheduleActions:
    """What can be done."""
    return ScheduleActions(app, TOKYO)


def rows(app: ConventionsApp) -> list[tuple[str, str, str, str | None]]:
    """The audit, the oldest first."""
    with app.database.session() as session:
        found = [(one.actor, one.action, one.target, one.reason) for one in audit.listing(session, 9)]
    return found[::-1]


def journal(app: ConventionsApp) -> int:
    """How many entries wait in the journal."""
    return app.journal.length()


def test_each_action_is_in_the_audit_at_once_and_once(app: ConventionsApp, actions: ScheduleActions) -> None:
    """It is in the journal, too, and the recorder adds no second row."""
    until = datetime(2099, 1, 1, 9, tzinfo=TOKYO)
    actions.pause(DAILY, "u-42", " the database moves ", until)
    actions.pause(DAILY, "u-43", "still")
    assert actions.resume(DAILY, "u-42", "it has moved")
    assert not actions.resume(DAILY, "u-42")
    run = actions.run_now(DAILY, "u-42", "missed in the morning")
    expected = [
        ("u-42", "schedule pause", "daily", "the database moves"),
        ("u-43", "schedule pause", "daily", "still"),
        ("u-42", "schedule resume", "daily", "it has moved"),
        ("u-42", "schedule run", "daily", "missed in the morning"),
    ]
    assert rows(app) == expected
    assert journal(app) == 4
    Recorder(app.store, lambda: app.database).drain_once()
    assert rows(app) == expected
    assert journal(app) == 0
    with app.database.session() as session:
        second, third = audit.listing(session, 9)[2], audit.listing(session, 9)[1]
        before = {"actor": "u-42", "reason": "the database moves", "until": until.astimezone(UTC).isoformat()}
        assert second.before == before
        assert second.after == third.before == {"reason": "still", "until": None}
        assert audit.listing(session, 1)[0].after == {"id": run.id}


def test_a_schedule_can_be_paused_while_sql_is_away(
    app: ConventionsApp, actions: ScheduleActions, tmp_path: Path
) -> None:
    """The audit entry waits in the journal; that is when somebody wants to pause."""
    with app.database.session() as session:
        session.connection().exec_driver_sql("ALTER TABLE conventions_audit RENAME TO away")
    actions.pause(DAILY, "u-42", "the database is down")
    assert Schedules(app.store).read(["daily"])[1]["daily"].pause is not None
    with app.database.session() as session:
        session.connection().exec_driver_sql("ALTER TABLE away RENAME TO conventions_audit")
    assert rows(app) == []
    Recorder(app.store, lambda: app.database).drain_once()
    assert rows(app) == [("u-42", "schedule pause", "daily", "the database is down")]


def test_a_pause_that_somebody_else_set_meanwhile_is_not_lifted(
    app: ConventionsApp, actions: ScheduleActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who resumes has not seen its reason."""
    actions.pause(DAILY, "u-1", "short")
    read = actions._state.read

    def read_and_pause(names: Any) -> Any:
        found = read(names)
        monkeypatch.setattr(actions._state, "read", read)
        ScheduleActions(app, TOKYO).pause(DAILY, "u-2", "the ledger is corrupt")
        return found

    monkeypatch.setattr(actions._state, "read", read_and_pause)
    with pytest.raises(PausedAgain) as refused:
        actions.resume(DAILY, "u-1")
    assert (refused.value.pause.actor, refused.value.pause.reason) == ("u-2", "the ledger is corrupt")
    assert rows(app)[-1] == ("u-2", "schedule pause", "daily", "the ledger is corrupt")


def test_a_schedule_can_be_paused_while_redis_is_full(app: ConventionsApp, actions: ScheduleActions) -> None:
    """That is when somebody wants it to send nothing."""
    app.store.redis.config_set("maxmemory", 1)
    try:
        actions.pause(DAILY, "u-42", "a flood")
    finally:
        app.store.redis.config_set("maxmemory", 0)
    assert Schedules(app.store).read(["daily"])[1]["daily"].pause is not None


def test_a_reason_in_odd_bytes_is_kept(app: ConventionsApp, actions: ScheduleActions) -> None:
    """As every database stores it."""
    actions.pause(DAILY, "u-42", "caf\udcff\0")
    assert rows(app)[0][3] == "caf\\udcff\\0"


@pytest.mark.parametrize(
    ("reason", "until"),
    [
        ("", None),
        ("  ", None),
        ("x" * 2001, None),
        ("why", datetime(2020, 1, 1, tzinfo=UTC)),
        ("why", datetime(9999, 12, 31, tzinfo=UTC)),
        ("why", datetime(2099, 1, 1)),  # noqa: DTZ001  # what is tested
    ],
)
def test_a_pause_that_cannot_be_meant_is_refused(
    reason: str, until: datetime | None, app: ConventionsApp, actions: ScheduleActions
) -> None:
    """Without a reason, in the past, or without a zone; nothing is changed."""
    with pytest.raises(ValueError, match=r"say why|in the future|no time zone|too far away|at most 2,000"):
        actions.pause(DAILY, "u-42", reason, until)
    assert Schedules(app.store).read(["daily"])[1]["daily"].pause is None
    assert rows(app) == []


def test_resuming_passes_over_the_slots_meanwhile(app: ConventionsApp, actions: ScheduleActions) -> None:
    """Up to now; of a pause whose end has come up to that. The history says how many there were."""
    schedules = Schedules(app.store)
    now = schedules.now()
    schedules.enter("daily", {}, now - timedelta(days=3), None)
    actions.pause(DAILY, "u-42", "why")
    assert actions.resume(DAILY, "u-42")
    state = schedules.read(["daily"])[1]["daily"]
    assert state.cursor is not None
    assert abs(state.cursor - now) < timedelta(seconds=5)
    (line,) = schedules.history("daily", 9)
    assert (line.what, line.count, line.actor, line.note) == ("paused", 3, "u-42", "why")


def test_run_now_sends_the_latest_slots_arguments(app: ConventionsApp, actions: ScheduleActions, sent: Sent) -> None:
    """In the name of who did it, with the schedule's name and no planned time, also while it is paused."""
    actions.pause(DAILY, "u-42", "why")
    run = actions.run_now(DAILY, "u-42")
    (message,) = sent
    latest = DAILY.when.latest_slot(Schedules(app.store).now(), TOKYO)
    assert latest is not None
    assert days(sent) == [latest.date().isoformat()]
    assert (message["id"], message["x_actor"], message["x_schedule"]) == (run.id, "u-42", "daily")
    assert "x_planned_at" not in message
    assert Schedules(app.store).read(["daily"])[1]["daily"].last_run == run


def test_each_run_by_hand_is_a_job_of_its_own(actions: ScheduleActions, sent: Sent) -> None:
    """Also with the arguments of one that ran before: somebody wants it to run."""
    first = actions.run_now(DAILY, "u-42", "the figures were wrong")
    actions.run_now(DAILY, "u-42", "the figures were wrong", seen=first.id)
    assert len({message["x_key"] for message in sent}) == 2


def test_of_two_in_the_same_moment_one_runs_it(app: ConventionsApp, actions: ScheduleActions, sent: Sent) -> None:
    """The other one is told who did, and leaves nothing in the audit; another schedule is another one."""
    both, told, ran = Barrier(2), list[JustRun](), list[Run]()

    def run(actor: str) -> None:
        both.wait(patient(10))
        try:
            ran.append(ScheduleActions(app, TOKYO).run_now(DAILY, actor))
        except JustRun as just:
            told.append(just)

    threads = [Thread(target=run, args=(actor,)) for actor in ("u-1", "u-2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patient(10))
    (run_,), (just,) = ran, told
    assert (just.id, just.actor) == (run_.id, run_.actor)
    assert [message["id"] for message in sent] == [run_.id]
    assert [row[0] for row in rows(app)] == [run_.actor]
    actions.run_now(ALONE, "u-2")


def test_some_seconds_later_it_runs_once_more(app: ConventionsApp, actions: ScheduleActions) -> None:
    """Nobody takes it for the same any more; nor one that follows a run that could not be sent."""
    claim = app.store.key("schedule", "by_hand", "daily")
    actions.run_now(DAILY, "u-1")
    assert 0 < app.store.redis.pttl(claim) <= SAME_MOMENT.total_seconds() * 1000
    wait_until(lambda: not app.store.redis.exists(claim), 10, "the moment is over")
    actions.run_now(DAILY, "u-1")
    assert len(Schedules(app.store).history("daily", 9)) == 2


@pytest.mark.parametrize("sends", [True, False])
def test_one_that_lasts_long_leaves_the_place_of_another_one(app: ConventionsApp, sends: bool) -> None:
    """Its own is over after a minute, and somebody else runs it meanwhile: a third one is refused still."""
    schedules, claim = Schedules(app.store), app.store.key("schedule", "by_hand", "daily")

    def begin(id_: str, actor: str) -> Begun:
        audit_entry = AuditEntry(actor, "schedule run", "daily", None)
        day = timedelta(days=1)
        return schedules.begin("daily", id_, day, overlap="allow", here=False, audit_entry=audit_entry)

    assert begin("one", "u-1").just is None
    with suppress(BrokerUnavailable), schedules.by_hand("daily", "one"):
        app.store.redis.delete(claim)  # its minute is over
        assert begin("two", "u-2").just is None
        if not sends:
            raise BrokerUnavailable("away")
    assert app.store.redis.pttl(claim) > SAME_MOMENT.total_seconds() * 1000
    assert begin("three", "u-3").just == ("two", "u-2")


def test_run_now_beside_a_run_that_has_not_ended_is_refused(app: ConventionsApp, actions: ScheduleActions) -> None:
    """Where the schedule says so; unless it is asked for."""
    first = actions.run_now(ALONE, "u-42")
    with pytest.raises(StillRuns) as refused:
        actions.run_now(ALONE, "u-42")
    assert refused.value.id == first.id
    second = actions.run_now(ALONE, "u-42", beside=True, seen=first.id)
    app.broker.drop("scheduled")
    third = actions.run_now(ALONE, "u-42", seen=second.id)
    assert [one.id for one in Schedules(app.store).history("alone", 9)] == [third.id, second.id, first.id]


def test_what_could_not_be_sent_leaves_nothing(
    app: ConventionsApp, actions: ScheduleActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No history, and no run that others would wait for; that somebody wanted it is in the audit."""
    monkeypatch.setattr(app.settings, "broker_timeout", 0.1)
    monkeypatch.setattr(app.broker, "journal_limit", 0)  # the server says no
    with pytest.raises(BrokerUnavailable):
        actions.run_now(ALONE, "u-42")
    assert rows(app) == [("u-42", "schedule run", "alone", None)]
    assert Schedules(app.store).history("alone", 9) == []
    assert app.store.redis.keys(app.store.key("live", "*")) == []
    assert app.store.redis.keys(app.store.key("schedule", "by_hand", "*")) == []
