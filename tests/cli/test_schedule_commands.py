"""`celery schedule`: what it prints, what it changes and leaves in the audit, and its exit status (R10, R22)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import getpass
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeAlias

import pytest
from click.testing import Result

from conventions.app import ConventionsApp
from conventions.batches.batch_state import Origin
from conventions.cli.schedule import schedule
from conventions.records import audit
from conventions.schedules.beat_liveness import SILENT_AFTER, Beats
from conventions.schedules.catch_up import MOST, Passed
from conventions.schedules.cron import cron
from conventions.schedules.interval import every
from conventions.schedules.schedule import Schedule, planned_date, previous_day
from conventions.schedules.schedule_state import Run
from conventions.schedules.schedule_store import Schedules
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.storage.tables import AuditRow
from tests.beat_fixtures import Beat, Clock, beat, clock  # noqa: F401  # fixtures
from tests.cli.command_tasks import Import, Send
from tests.recorded import append, drain, entry, event, recorder
from tests.support import patient, wait_until
from tests.workers import Installation, application, messages

DAILY = Schedule("daily", cron("0 9 * * *"), Send, {"user_id": 7, "day": planned_date})
MONDAY = Schedule(
    "monday", cron("0 10 * * MON"), Send, {"user_id": 8, "day": previous_day}, within=timedelta(hours=2), overlap="skip"
)
FIELDS = {"name", "task", "cron", "next_run_at", "last_run_at", "last_run_by_hand", "last_outcome", "paused"}
RULES = {"catch_up", "within", "overlap"}
PAUSE = {"pause_reason", "paused_by", "paused_at", "paused_until"}
STATE = {"words", "arguments", "late", "overdue", "fault", "beat", "upcoming"}
LINE = {"planned_at", "sent_at", "late", "what", "outcome", "runtime", "count", "note", "id", "actor"}
TODAY = "2026-11-25"  # a Wednesday; the clock of these tests is at 08:00

ZONE = "times are those of Asia/Tokyo"

Command: TypeAlias = Callable[..., Result]


@pytest.fixture
def app(commands_app: ConventionsApp) -> ConventionsApp:
    """The application of the commands, for beats, too."""
    return commands_app


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what the file has."""

    def listed(*schedules: Schedule) -> None:
        monkeypatch.setattr("conventions.cli.schedule_options.load_schedule", lambda _app: schedules)

    return listed


@pytest.fixture
def command(run: Command, listed: Callable[..., None], clock: Clock) -> Command:
    """Run a `schedule` command for the application with two schedules."""
    listed(DAILY, MONDAY)
    return lambda *arguments: run(schedule, *arguments)


def rows(result: Result, status: int = 0) -> Any:
    """The JSON of a command; nothing else is on standard output."""
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def deeds(app: ConventionsApp, name: str = "daily") -> list[AuditRow]:
    """What the audit says of a schedule, the oldest first."""
    with app.database.session() as session:
        session.expire_on_commit = False
        return list(reversed(audit.listing(session, 100, target=name)))


def told(deed: AuditRow) -> tuple[str, str, str | None]:
    """Who did what, and why."""
    return deed.actor, deed.action, deed.reason


# list


def test_list_names_the_fixed_fields(command: Command, clock: Clock) -> None:
    """One object for each schedule, in the order of the file, with times in Tokyo's offset."""
    first, second = rows(command("list", "--json"))
    assert first == {
        "name": "daily", "task": Send.name, "cron": "0 9 * * *", "next_run_at": f"{TODAY}T09:00:00+09:00",
        "last_run_at": None, "last_run_by_hand": False, "last_outcome": None, "paused": False,
    }  # fmt: skip
    assert (set(second), second["next_run_at"]) == (FIELDS, "2026-11-30T10:00:00+09:00")
    command("run", "daily")
    ran = rows(command("list", "--json"))[0]
    assert (ran["last_run_at"], ran["last_run_by_hand"]) == (f"{TODAY}T08:00:00+09:00", True)
    assert f"{TODAY} 08:00:00 (by hand)" in command("list").stdout
    assert [row["name"] for row in rows(command("list", "--json", "--limit", "1"))] == ["daily"]


def test_list_for_people(command: Command) -> None:
    """A table that tells how long a pause lasts."""
    command("pause", "daily", "--reason", "moving", "--until", "2026-12-01")
    header, daily, monday = command("list").stdout.splitlines()
    assert header.split("  ")[0] == "name"
    assert f"{TODAY} 09:00:00" not in daily
    assert "until 2026-12-01 00:00:00" in daily
    assert command("list").stderr.splitlines()[-1] == ZONE
    assert monday.rstrip().endswith("no")
    command("pause", "monday", "--reason", "moving")
    assert command("list").stdout.splitlines()[2].rstrip().endswith("yes")


def test_list_of_no_schedule(command: Command, listed: Callable[..., None]) -> None:
    """Is an empty array, with status 0."""
    listed()
    assert rows(command("list", "--json")) == []


def test_list_says_that_no_beat_runs(command: Command, beat: Beat, app: ConventionsApp) -> None:
    """With the command that starts one; nothing where one leads."""
    assert "celery -A tests beat" in command("list", "--json").stderr
    beat(DAILY, MONDAY).tick()
    assert command("list", "--json").stderr == ""
    assert command("show", "daily").stderr == f"{ZONE}\n"
    make_silent(app)
    assert "no beat looks at the schedule" in command("list").stderr


def no_figures(planned: datetime) -> date:
    """An argument that cannot be computed on this day."""
    if planned.date().isoformat() == TODAY:
        raise LookupError("no figures\nfor the 25th")
    return planned.date()


def test_list_says_what_is_wrong_with_a_schedule(
    command: Command, listed: Callable[..., None], beat: Beat, clock: Clock
) -> None:
    """One line on standard error: a slot that waits, why it failed, and a file that is not what the beat runs."""
    faulty = Schedule("faulty", cron("0 9 * * *"), Send, {"user_id": 7, "day": no_figures})
    scheduler = beat(faulty, MONDAY)
    scheduler.tick()
    clock.to(f"{TODAY}T09:03:00+09:00")
    scheduler.tick()
    listed(faulty, Schedule("monday", cron("0 11 * * MON"), Send, {"user_id": 8, "day": previous_day}))
    result = command("list", "--json")
    late, other = result.stderr.splitlines()
    assert late == (
        "faulty: overdue, a slot waits for 3 min; the last try to send it failed: LookupError: no figures for the 25th"
    )
    assert other.startswith("monday: the beat runs another version")
    assert len(rows(result)) == 2
    shown = rows(command("show", "faulty", "--json"))
    assert (shown["overdue"], shown["fault"]) == (180.0, "LookupError: no figures\nfor the 25th")
    assert shown["beat"] == "runs this"
    assert rows(command("show", "monday", "--json"))["beat"] == "runs another version"
    people = command("show", "faulty")
    assert people.stderr == f"{late}\n{ZONE}\n"
    assert "overdue       3 min\n" in people.stdout


# show


def test_show_tells_all_of_a_schedule(command: Command, beat: Beat, clock: Clock) -> None:
    """Its times in English, its functions by name, its rules, and the five slots to come."""
    shown = rows(command("show", "monday", "--json"))
    assert set(shown) == FIELDS | RULES | PAUSE | STATE
    assert shown["words"] == "At 10:00 on Monday"
    assert shown["arguments"] == {"user_id": "8", "day": "previous_day()"}
    assert (shown["catch_up"], shown["within"], shown["overlap"]) == ("latest", 7200.0, "skip")
    assert (shown["beat"], shown["late"], shown["overdue"], shown["fault"]) == ("has not seen it", None, None, None)
    mondays = [datetime.fromisoformat("2026-11-30T10:00:00+09:00") + timedelta(weeks=week) for week in range(5)]
    assert shown["upcoming"] == [monday.isoformat() for monday in mondays]
    scheduler = beat(DAILY, MONDAY)
    scheduler.tick()
    clock.to(f"{TODAY}T09:00:02+09:00")
    scheduler.tick()
    shown = rows(command("show", "daily", "--json"))
    assert (shown["late"], shown["within"], shown["beat"]) == (2.0, None, "runs this")
    assert shown["last_run_at"] == f"{TODAY}T09:00:02+09:00"


def test_show_for_people(command: Command) -> None:
    """One line for each field; lengths of time in words."""
    lines = dict(line.split(maxsplit=1) for line in command("show", "monday").stdout.splitlines() if " " in line)
    assert lines["words"] == "At 10:00 on Monday"
    assert lines["within"] == "2 h"
    assert lines["arguments"] == "user_id=8, day=previous_day()"
    assert lines["paused"] == "no"
    assert lines["upcoming"].startswith("2026-11-30 10:00:00, 2026-12-07 10:00:00")
    assert "fault" not in lines  # what there is nothing to say of


def test_show_of_a_paused_schedule(command: Command, app: ConventionsApp) -> None:
    """Who, why, since when and until when; slots come after the end only, and none without one."""
    command("pause", "daily", "--reason", "moving", "--actor", "u-9")
    shown = rows(command("show", "daily", "--json"))
    assert {name: shown[name] for name in PAUSE} == {
        "pause_reason": "moving", "paused_by": "u-9", "paused_at": f"{TODAY}T08:00:00+09:00", "paused_until": None,
    }  # fmt: skip
    assert (shown["paused"], shown["next_run_at"], shown["upcoming"]) == (True, None, [])
    command("pause", "daily", "--reason", "moving", "--until", "2026-12-01T09:00")
    shown = rows(command("show", "daily", "--json"))
    assert shown["paused_until"] == "2026-12-01T09:00:00+09:00"
    assert shown["next_run_at"] == shown["upcoming"][0] == "2026-12-01T09:00:00+09:00", (
        "the slot at its end is the first"
    )


def test_a_lifted_pause_is_no_sign_of_a_beat(command: Command) -> None:
    """A schedule that only the command line knows has not been seen."""
    command("pause", "daily", "--reason", "moving")
    command("resume", "daily")
    assert rows(command("show", "daily", "--json"))["beat"] == "has not seen it"


# next


def test_next_merges_the_schedules_in_order_of_time(command: Command) -> None:
    """A week has seven daily slots and one on Monday; `--limit` and `--days` cut the list."""
    coming = rows(command("next", "--days", "7", "--json"))
    assert [row["name"] for row in coming] == ["daily"] * 6 + ["monday", "daily"]
    assert [row["planned_at"] for row in coming] == sorted(row["planned_at"] for row in coming)
    assert coming[6] == {"planned_at": "2026-11-30T10:00:00+09:00", "name": "monday", "task": Send.name}
    assert len(rows(command("next", "--limit", "3", "--json"))) == 3
    assert len(rows(command("next", "--days", "1", "--json"))) == 1
    assert rows(command("next", "--days", "0.04", "--json")) == [], "58 minutes"
    assert len(command("next").stdout.splitlines()) == 9


def test_next_of_some_schedules(command: Command) -> None:
    """A frequent one does not hide the others; a list that is cut says so, and a wrong name is refused."""
    assert {row["name"] for row in rows(command("next", "monday", "--json"))} == {"monday"}
    cut = command("next", "daily", "--limit", "2")
    assert "these are the first 2 of more" in cut.stderr
    assert "more" not in command("next", "daily", "--days", "2").stderr
    assert command("next", "weekly").exit_code == 1


def test_history_of_a_schedule_that_was_removed(command: Command, app: ConventionsApp) -> None:
    """Can be read as long as it is kept."""
    Schedules(app.store).advance("old", SLOT, None, Run(SLOT, SLOT, "", "beat", "skipped", note="x"))
    assert [row["what"] for row in rows(command("history", "old", "--json"))] == ["skipped"]


def test_history_says_why_a_run_is_dead(command: Command, app: ConventionsApp) -> None:
    """In one line."""
    Schedules(app.store).advance("daily", SLOT, None, Run(SLOT, SLOT, "bad", "beat"))
    append(app.store, entry(event("bad", "dead")))
    drain(recorder(app.store, app.database))
    (row,) = rows(command("history", "daily", "--json"))
    assert (row["outcome"], row["note"]) == ("dead", "ValueError: no")


def test_list_says_what_the_beat_does_not_have(
    command: Command, beat: Beat, app: ConventionsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schedule that is new in the file, and a zone that is not the beat's."""
    beat(DAILY).tick()
    assert command("list", "--json").stderr.startswith("monday: the beat that leads does not have it: restart beat")
    monkeypatch.setattr(app.settings, "timezone", "Europe/Berlin")
    told = command("show", "daily", "--json").stderr
    assert told.startswith("daily: the beat plans in Asia/Tokyo, this command in Europe/Berlin")


def test_a_folder_without_a_schedule_is_named(
    command: Command, listed: Callable[..., None], app: ConventionsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is there to be listed, and why."""
    listed()
    monkeypatch.setattr(type(app), "schedule_address", None)
    result = command("list", "--json")
    assert rows(result) == []
    assert "there is no beat_schedule.py in" in result.stderr


def test_next_leaves_out_what_a_pause_holds_back(command: Command) -> None:
    """Of one that ends the slots before its end, of one without an end all."""
    command("pause", "daily", "--reason", "moving", "--until", "3d")
    command("pause", "monday", "--reason", "moving")
    coming = rows(command("next", "--json"))
    assert [row["planned_at"][:10] for row in coming] == ["2026-11-28", "2026-11-29", "2026-11-30", "2026-12-01"]
    assert {row["name"] for row in coming} == {"daily"}


LAST_YEAR = max(datetime.now(UTC).year, 2026) + 1


class Ending:
    """A calendar that ends."""

    def __contains__(self, day: object) -> bool:
        if isinstance(day, date) and day.year > LAST_YEAR:
            raise LookupError("no holidays yet")
        return True


def test_a_calendar_that_ends_is_named(command: Command, listed: Callable[..., None]) -> None:
    """In one line with the schedule's name, status 2; as far as the calendar goes all is well."""
    listed(Schedule("odd", cron("0 9 1 * *", only=Ending()), Send, {"user_id": 7, "day": planned_date}))
    assert len(rows(command("next", "--days", "40", "--json"))) == 2
    result = command("next", "--days", "36500", "--limit", "36500")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "odd: LookupError: no holidays yet" in result.stderr


# run


def test_run_sends_the_latest_slots_arguments_by_hand(command: Command, app: ConventionsApp) -> None:
    """A run by hand has no planned time, so that it runs beside the slot's own; it is in history and audit."""
    answer = rows(command("run", "daily", "--reason", "it was wrong", "--json"))
    (message,) = messages(app)
    assert answer == {
        "name": "daily", "task": Send.name, "id": message.id, "sent_at": f"{TODAY}T08:00:00+09:00", "still_runs": None,
        "just_run": None,
    }  # fmt: skip
    assert message.arguments == {"user_id": 7, "day": "2026-11-24"}
    assert (message.headers["x_actor"], message.headers["x_schedule"]) == (getpass.getuser(), "daily")
    assert "x_planned_at" not in message.headers
    (line,) = rows(command("history", "daily", "--json"))
    assert line == {
        "planned_at": None, "sent_at": answer["sent_at"], "late": None, "what": "sent", "outcome": "waiting",
        "runtime": None, "count": 1, "note": "it was wrong", "id": message.id, "actor": getpass.getuser(),
    }  # fmt: skip
    (deed,) = deeds(app)
    assert told(deed) == (getpass.getuser(), "schedule run", "it was wrong")
    assert deed.after == {"id": message.id}


def test_run_of_a_paused_schedule(command: Command, app: ConventionsApp, clock: Clock) -> None:
    """Runs it, in the name of somebody else, and says under which id."""
    command("pause", "daily", "--reason", "moving")
    clock.to(f"{TODAY}T08:10:00+09:00")
    result = command("run", "daily", "--actor", "u-9")
    (message,) = messages(app)
    assert (result.exit_code, result.stdout) == (0, f"daily is sent as {message.id}\n")
    assert [told(deed) for deed in deeds(app)] == [
        (getpass.getuser(), "schedule pause", "moving"),
        ("u-9", "schedule run", None),
    ]


def test_run_waits_for_no_other_where_two_must_not_overlap(command: Command, app: ConventionsApp) -> None:
    """While a run is in the queue: status 1, its id, and nothing is sent unless it may run beside it."""
    first = rows(command("run", "monday", "--json"))["id"]
    result = command("run", "monday")
    assert (result.exit_code, result.stdout) == (1, "")
    assert first in result.stderr
    assert "--beside" in result.stderr
    answer = rows(command("run", "monday", "--json"), status=1)
    assert (answer["id"], answer["sent_at"], answer["still_runs"]) == (None, None, first)
    assert [message.id for message in messages(app)] == [first]
    assert len(deeds(app, "monday")) == 1
    later(app, "monday")
    second = rows(command("run", "monday", "--beside", "--json"))["id"]
    assert {message.id for message in messages(app)} == {first, second}
    assert command("run", "daily").exit_code == 0
    later(app, "daily")
    assert command("run", "daily").exit_code == 0, "these may overlap"


def test_run_twice_in_the_same_moment(command: Command, app: ConventionsApp) -> None:
    """Runs it once: status 1, and who did it."""
    first = rows(command("run", "daily", "--json", "--actor", "u-1"))["id"]
    result = command("run", "daily")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"nothing is sent: u-1 has run daily in the same moment, as {first};")
    answer = rows(command("run", "daily", "--json"), status=1)
    assert (answer["id"], answer["just_run"]) == (None, first)
    assert [message.id for message in messages(app)] == [first]
    assert len(deeds(app, "daily")) == 1


def later(app: ConventionsApp, name: str) -> None:
    """Let some seconds pass after a run by hand."""
    app.store.redis.delete(app.store.key("schedule", "by_hand", name))


def test_run_whose_arguments_cannot_be_made(command: Command, listed: Callable[..., None], clock: Clock) -> None:
    """One line with the schedule's name, status 2."""
    listed(Schedule("faulty", cron("0 9 * * *"), Send, {"user_id": 7, "day": no_figures}, overlap="skip"))
    clock.to(f"{TODAY}T10:00:00+09:00")
    for _ in range(2):  # it does not count as a run that has not ended
        result = command("run", "faulty")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "faulty: LookupError: no figures" in result.stderr


# pause and resume


def test_pause_without_an_end(command: Command, app: ConventionsApp) -> None:
    """Says how to resume it."""
    result = command("pause", "daily", "--reason", " moving house ")
    assert result.exit_code == 0
    assert (
        result.stdout == "daily is paused: moving house\nto let it run again: celery -A tests schedule resume daily\n"
    )
    assert rows(command("list", "--json"))[0]["paused"] is True
    (deed,) = deeds(app)
    assert told(deed) == (getpass.getuser(), "schedule pause", "moving house")
    assert (deed.before, deed.after) == (None, {"reason": "moving house", "until": None})


@pytest.mark.parametrize(
    ("until", "moment"),
    [
        ("2h", f"{TODAY}T10:00:00+09:00"),
        ("7d", "2026-12-02T08:00:00+09:00"),
        ("2026-12-01", "2026-12-01T00:00:00+09:00"),
        ("2026-12-01T09:30", "2026-12-01T09:30:00+09:00"),
        ("2026-12-01 09:30:10", "2026-12-01T09:30:10+09:00"),
        ("2026-12-01T09:30Z", "2026-12-01T18:30:00+09:00"),
    ],
)
def test_pause_until(until: str, moment: str, command: Command, app: ConventionsApp) -> None:
    """A length of time, or a date and perhaps a time, in Tokyo's zone where it names no offset."""
    answer = rows(command("pause", "daily", "--reason", "moving", "--until", until, "--actor", "u-9", "--json"))
    assert answer == {
        "name": "daily", "paused": True, "pause_reason": "moving", "paused_by": "u-9",
        "paused_at": f"{TODAY}T08:00:00+09:00", "paused_until": moment,
    }  # fmt: skip
    assert rows(command("show", "daily", "--json"))["paused_until"] == moment
    (deed,) = deeds(app)
    assert datetime.fromisoformat(deed.after["until"]) == datetime.fromisoformat(moment)
    text = command("pause", "daily", "--reason", "moving", "--until", until).stdout
    assert f"daily is paused until {moment.replace('T', ' ').replace('+09:00', ' JST')}: moving\n" in text
    assert "celery -A tests schedule resume daily" in text


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--reason", "moving", "--until", f"{TODAY}T08:00"), "is not in the future: here it is 2026-11-25 08:00:00"),
        (("--reason", "moving", "--until", TODAY), "is not in the future"),
        (("--reason", "moving", "--until", "0001-01-01"), "is not in the future"),
        (("--reason", "moving", "--until", "0s"), "is not in the future"),
        (("--reason", "moving", "--until", "9999-12-31T23:59-12:00"), "is too far away"),
        (("--reason", "moving", "--until", "9999999d"), "too long"),
        (("--reason", "moving", "--until", "soon"), "'soon' is no length of time"),
        (("--reason", "moving", "--until", "2026-02-30"), "or give a date"),
        (("--reason", " "), "say why"),
        ((), "--reason"),
    ],
)
def test_pause_that_is_refused(options: tuple[str, ...], named: str, command: Command, app: ConventionsApp) -> None:
    """Status 2 and a sentence; nothing is changed."""
    result = command("pause", "daily", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert named in result.stderr
    assert rows(command("list", "--json"))[0]["paused"] is False
    assert deeds(app) == []


def test_a_second_pause_takes_the_place_of_the_first(command: Command, app: ConventionsApp, clock: Clock) -> None:
    """And says whose; the audit has both."""
    command("pause", "daily", "--reason", "moving", "--actor", "u-9")
    clock.to(f"{TODAY}T08:10:00+09:00")
    result = command("pause", "daily", "--reason", "resting", "--until", "2h")
    assert "u-9: moving" in result.stderr
    assert rows(command("show", "daily", "--json"))["pause_reason"] == "resting"
    assert [(deed.before or {}).get("reason") for deed in deeds(app)] == [None, "moving"]


def test_resume(command: Command, app: ConventionsApp, clock: Clock) -> None:
    """Says when it runs next; the second time the answer is no, and nothing is written."""
    command("pause", "daily", "--reason", "moving")
    clock.to(f"{TODAY}T08:10:00+09:00")
    result = command("resume", "daily", "--reason", "we are there", "--actor", "u-9")
    assert (result.exit_code, result.stdout) == (0, f"daily runs again, next at {TODAY} 09:00:00 JST\n")
    assert told(deeds(app)[-1]) == ("u-9", "schedule resume", "we are there")
    again = command("resume", "daily")
    assert (again.exit_code, again.stdout, again.stderr) == (1, "", "daily is not paused\n")
    assert len(deeds(app)) == 2
    assert rows(command("list", "--json"))[0]["paused"] is False


def test_resume_as_json(command: Command) -> None:
    """Whether it was paused, and its next slot."""
    command("pause", "monday", "--reason", "moving", "--until", "2027-01-01")
    answer = {"name": "monday", "resumed": True, "next_run_at": "2026-11-30T10:00:00+09:00"}
    assert rows(command("resume", "monday", "--json")) == answer
    assert rows(command("resume", "monday", "--json"), status=1) == answer | {"resumed": False}


# history

SLOT = datetime(2026, 11, 1, tzinfo=UTC)  # 09:00 in Tokyo


@pytest.fixture
def lines(app: ConventionsApp) -> None:
    """A history of which each line ended in another way, and what SQL knows of it."""
    state, moments = Schedules(app.store), [SLOT + timedelta(days=number) for number in range(9)]

    def add(slot: datetime, run: Run) -> None:
        state.advance("daily", slot, None, run)

    for slot, id_ in zip(moments, ("ok", "dead", "again", "gone"), strict=False):
        add(slot, Run(slot, slot + timedelta(seconds=2.5), id_, "beat"))
    add(moments[4], Run(moments[4], moments[4], "", "beat", "skipped", note="gone"))
    add(moments[5], Run.without_message("failed", Passed(moments[5], moments[5], 1), SLOT, "beat", "KeyError: 'x'"))
    add(moments[7], Run.without_message("paused", Passed(moments[6], moments[7], 2), SLOT, "u-9", "moving"))
    add(moments[8], Run.without_message("missed", Passed(moments[8], moments[8], MOST), SLOT, "beat"))
    append(
        app.store,
        entry(event("ok", runtime=1.25)),
        entry(event("dead", "dead", runtime=0.5)),
        entry(event("again", "retried")),
    )
    drain(recorder(app.store, app.database))


@pytest.mark.usefixtures("lines")
def test_history_tells_what_became_of_each_slot(command: Command) -> None:
    """The newest first: how late it was sent, how it ended, or why nothing was sent."""
    command("run", "daily")
    found = rows(command("history", "daily", "--json"))
    assert all(set(row) == LINE for row in found)
    assert [(row["what"], row["outcome"], row["late"], row["runtime"], row["count"]) for row in found] == [
        ("sent", "waiting", None, None, 1),
        ("missed", "missed", None, None, MOST),
        ("paused", "paused", None, None, 2),
        ("failed", "failed", None, None, 1),
        ("skipped", "skipped", None, None, 1),
        ("sent", "unknown", 2.5, None, 1),
        ("sent", "retrying", 2.5, None, 1),
        ("sent", "dead", 2.5, 0.5, 1),
        ("sent", "succeeded", 2.5, 1.25, 1),
    ]
    assert (found[-1]["planned_at"], found[-1]["sent_at"]) == ("2026-11-01T09:00:00+09:00", "2026-11-01T09:00:02+09:00")
    assert [row["sent_at"] for row in found[1:5]] == [row["id"] for row in found[1:5]] == [None] * 4
    assert [row["note"] for row in found[1:6]] == [None, "moving", "KeyError: 'x'", "gone", None]
    assert [row["id"] for row in rows(command("history", "daily", "--json", "--limit", "6"))][-1] == "gone"
    assert rows(command("history", "monday", "--json")) == []


@pytest.mark.usefixtures("lines")
def test_a_schedule_whose_runs_fail_is_named(command: Command) -> None:
    """By the list and by `show`, with the last error."""
    for name in ("list", "show"):
        result = command(name, *(["daily"] if name == "show" else []))
        assert "daily: " in result.stderr
        assert "its last 2 runs failed" in result.stderr
    assert rows(command("list", "--json"))[0]["last_outcome"] == "missed"


@pytest.mark.usefixtures("lines")
def test_history_for_people(command: Command) -> None:
    """A line that stands for several slots says so; what is skipped names what had not ended."""
    header, missed, paused, failed, skipped, *_ = command("history", "daily").stdout.splitlines()
    assert header.split() == ["planned", "at", "sent", "at", "late", "outcome", "runtime", "note", "id", "actor"]
    assert f"at least {MOST:,} slots from" in missed
    assert "2 slots from 2026-11-07 09:00:00 to 2026-11-08 09:00:00: moving" in paused
    assert "KeyError: 'x'" in failed
    assert "slots" not in failed
    assert "gone had not ended" in skipped


@pytest.mark.usefixtures("lines")
def test_history_without_sql(command: Command, app: ConventionsApp) -> None:
    """What has ended is unknown, which one line says, without a password; all else is told."""
    app.database.dispose()
    app.database = Database("postgresql://u:hunter2@127.0.0.1:1/x")
    result = command("history", "daily", "--json")
    assert [row["outcome"] for row in rows(result)] == [
        "missed", "paused", "failed", "skipped", "unknown", "unknown", "unknown", "unknown",
    ]  # fmt: skip
    (line,) = result.stderr.splitlines()
    assert "outcomes of what has ended are unknown" in line
    assert "hunter2" not in line


def test_history_says_what_is_not_recorded_yet(command: Command, app: ConventionsApp) -> None:
    """An outcome that is in the journal still is unknown; why is on standard error."""
    Schedules(app.store).advance("daily", SLOT, None, Run(SLOT, SLOT, "ok", "beat"))
    append(app.store, entry(event("ok")))
    result = command("history", "daily", "--json")
    assert [row["outcome"] for row in rows(result)] == ["unknown"]
    assert result.stderr == "not recorded yet: 1 event\n"
    drain(recorder(app.store, app.database))
    result = command("history", "daily", "--json")
    assert ([row["outcome"] for row in rows(result)], result.stderr) == (["succeeded"], "")


def test_history_of_a_batch(command: Command, listed: Callable[..., None], app: ConventionsApp) -> None:
    """It runs until all of its chunks have ended."""
    listed(Schedule("import", every(3600), Import, {"path": "x"}))
    id_ = rows(command("run", "import", "--json"))["id"]
    app.batches.create(id_, Origin(Import.name, {"path": "x"}, "u-42"), 2)
    assert [row["outcome"] for row in rows(command("history", "import", "--json"))] == ["running"]
    app.batches.cancel(id_)
    assert [row["outcome"] for row in rows(command("history", "import", "--json"))] == ["cancelled"]


# beats


def make_silent(app: ConventionsApp) -> None:
    """Let the last tick of every beat be longer ago than a beat may be silent."""
    key, redis = app.store.key("beats"), app.store.redis
    found: Any = redis.hgetall(key)
    for name, raw in found.items():
        leads, tick, since = raw.decode().split(":")
        redis.hset(key, name, f"{leads}:{int(tick) - round(SILENT_AFTER * 1000) - 1000}:{since}")


def test_beats_is_a_health_check(command: Command, beat: Beat, app: ConventionsApp) -> None:
    """Status 0 while one leads; without one, or with one that is stuck, status 1 and why."""
    result = command("beats", "--json")
    assert rows(result, status=1) == []
    assert result.stderr == "no beat runs, so nothing is sent: start one with `celery -A tests beat`\n"
    first, second = beat(DAILY), beat(DAILY)
    first.name, second.name = "host:1", "host:2"  # as of two processes
    first.tick()
    second.tick()
    result = command("beats", "--json")
    leader, other = rows(result)
    assert [set(row) for row in (leader, other)] == [{"name", "state", "since", "tick_at", "tick_age"}] * 2
    assert (leader["name"], leader["state"]) == ("host:1", "leads")
    assert (other["name"], other["state"], result.stderr) == ("host:2", "stands by", "")
    assert 0 <= leader["tick_age"] < 30
    tick = datetime.fromisoformat(leader["tick_at"])
    assert tick.utcoffset() == timedelta(hours=9)
    assert abs(datetime.now(UTC) - tick) < timedelta(minutes=1)
    assert [row["name"] for row in rows(command("beats", "--json", "--limit", "1"))] == ["host:1"]
    assert "stands by" in command("beats").stdout
    make_silent(app)
    result = command("beats")
    assert result.exit_code == 1
    assert result.stdout.count("silent") == 2
    assert "no beat looks at the schedule, so nothing is sent" in result.stderr


# exit status


@pytest.mark.parametrize(
    "arguments", [("show",), ("run",), ("history",), ("resume",), ("pause", "--reason", "why"), ("run", "--json")]
)
def test_there_is_no_such_schedule(arguments: tuple[str, ...], command: Command) -> None:
    """Status 1, and those that there are."""
    name, *options = arguments
    result = command(name, "nothing", *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "there is no schedule nothing; there are: daily, monday\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("next", "--days", "0"),
        ("next", "--days", "inf"),
        ("next", "--days", "1e9"),
        ("list", "--limit", "0"),
        ("show",),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], command: Command) -> None:
    """Status 2; the reason is on standard error."""
    result = command(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr


@pytest.mark.parametrize(
    "arguments", [("list",), ("beats",), ("run", "daily"), ("resume", "daily"), ("next", "--json")]
)
def test_without_redis(arguments: tuple[str, ...], run: Command, listed: Callable[..., None]) -> None:
    """Status 2 and one line, no traceback."""
    listed(DAILY)
    with application(["tests.cli.command_tasks"], broker_url="redis://127.0.0.1:1", database_url="sqlite://") as app:
        result = run(schedule, *arguments, app=app)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Redis cannot be reached" in result.stderr


# as a shell runs it

PROJECT = '''\
from datetime import date

from conventions import Schedule, ScheduledTask, create_app, cron, planned_date

app = create_app("project", packages=["project"], schedule="project:SCHEDULE")


class Note(ScheduledTask):
    """Note a day."""

    def run(self, day: date) -> None: ...


SCHEDULE = [Schedule("daily", cron("0 9 * * *"), Note, {"day": planned_date})]
'''


@contextmanager
def process(installation: Installation, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `celery -A project` process, killed at the end."""
    with (installation.folder / "beat.log").open("w") as log:
        process = subprocess.Popen(
            installation.celery(*arguments, app="project"),
            cwd=installation.folder,
            env=installation.environment,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.processes
def test_a_beat_of_its_own_process_is_seen(installation: Installation) -> None:
    """JSON is alone on standard output; the health check says yes while the beat runs, and no after it has ended."""
    (installation.folder / "project.py").write_text(PROJECT, encoding="utf-8")

    def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            installation.celery("schedule", *arguments, app="project"),
            cwd=installation.folder, env=installation.environment, text=True, capture_output=True, timeout=patient(60),
            check=False,
        )  # fmt: skip

    own = Store(installation.settings["broker_url"], installation.settings["key_prefix"])
    with process(installation, "beat") as running:
        wait_until(lambda: any(beat.leads for beat in Beats(own).listing()), 30, "a beat leads")
        result = shell("beats", "--json")
        assert (result.returncode, [row["state"] for row in json.loads(result.stdout)]) == (0, ["leads"]), result.stderr
        result = shell("show", "daily", "--json")
        assert (result.returncode, json.loads(result.stdout)["beat"]) == (0, "runs this"), result.stderr
        running.terminate()
        running.wait(patient(20))
    own.redis.close()
    result = shell("beats", "--json")
    assert (result.returncode, json.loads(result.stdout)) == (1, [])
    assert "celery -A project beat" in result.stderr
    result = shell("list", "--json")
    assert (result.returncode, [row["name"] for row in json.loads(result.stdout)]) == (0, ["daily"]), result.stderr
    assert "celery -A project beat" in result.stderr
