"""`celery schedule`: what it prints, what it changes, and its exit status."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from conventions.app import ConventionsApp
from conventions.cli.schedule import schedule
from conventions.cron import cron
from conventions.schedule import Schedule, planned_date, previous_day
from conventions.schedules import Run, Schedules
from tests.beat_fixtures import Note, Sent, app, days, sent  # noqa: F401  # fixtures

LISTED = (
    Schedule("daily", cron("0 9 * * *"), Note, {"day": planned_date}),
    Schedule("monday", cron("0 10 * * MON"), Note, {"day": previous_day}),
)

type Command = Callable[..., Result]


@pytest.fixture
def command(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a `schedule` command for the application with two schedules."""
    monkeypatch.setattr("conventions.cli.schedule.load_schedule", lambda _app: LISTED)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(schedule, arguments, obj=SimpleNamespace(app=app), catch_exceptions=False)

    return run


def rows(result: Result) -> Any:
    """The JSON of a command that succeeded; nothing else is on standard output."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_list_names_the_fixed_fields(command: Command, app: ConventionsApp) -> None:
    """One object for each schedule, in the order of the file, with times in Tokyo's offset."""
    listed = rows(command("list", "--json"))
    assert [set(row) for row in listed] == [{"name", "task", "cron", "next_run_at", "last_run_at", "paused"}] * 2
    assert [(row["name"], row["task"], row["cron"], row["paused"]) for row in listed] == [
        ("daily", "test_beat.Note", "0 9 * * *", False),
        ("monday", "test_beat.Note", "0 10 * * MON", False),
    ]
    following = datetime.fromisoformat(listed[0]["next_run_at"])
    assert listed[0]["next_run_at"].endswith("T09:00:00+09:00")
    assert timedelta(0) < following - datetime.now(UTC) <= timedelta(days=1)
    assert listed[0]["last_run_at"] is None
    Schedules(app.store).record("daily", Run(None, datetime(2026, 1, 1, tzinfo=UTC), "m", "u-42"))
    assert rows(command("list", "--json"))[0]["last_run_at"] == "2026-01-01T09:00:00+09:00"
    assert len(rows(command("list", "--json", "--limit", "1"))) == 1
    assert "next run at" in command("list").output


def test_show_tells_the_schedule_in_words(command: Command) -> None:
    """One object; its times in English, its functions by name, the slots to come."""
    shown = rows(command("show", "monday", "--json"))
    assert shown["words"] == "At 10:00 on Monday"
    assert shown["arguments"] == {"day": "previous_day()"}
    assert len(shown["upcoming"]) == 5
    assert "At 10:00 on Monday" in command("show", "monday").output


def test_next_merges_the_schedules_in_order_of_time(command: Command) -> None:
    """A week has seven daily slots and one on Monday; `--limit` and `--days` cut the list."""
    coming = rows(command("next", "--days", "7", "--json"))
    assert sorted(row["name"] for row in coming) == ["daily"] * 7 + ["monday"]
    assert [row["planned_at"] for row in coming] == sorted(row["planned_at"] for row in coming)
    assert set(coming[0]) == {"planned_at", "name", "task"}
    assert len(rows(command("next", "--limit", "3", "--json"))) == 3
    assert len(rows(command("next", "--days", "1", "--json"))) in (1, 2)
    assert rows(command("next", "--days", "0.00001", "--json")) == []


def test_run_sends_the_latest_slots_arguments_by_hand(command: Command, sent: Sent) -> None:
    """A run by hand has no planned time, so that it runs beside the slot's own, and stands in the history."""
    answer = rows(command("run", "daily", "--json"))
    (message,) = sent
    assert answer["id"] == message["id"]
    assert "x_planned_at" not in message
    latest = LISTED[0].when.latest_slot(datetime.now(UTC), datetime.fromisoformat(answer["sent_at"]).tzinfo or UTC)
    assert latest is not None
    assert days(sent) == [latest.date().isoformat()]
    (run,) = rows(command("history", "daily", "--json"))
    assert run == {
        "planned_at": None,
        "sent_at": answer["sent_at"],
        "late": None,
        "id": answer["id"],
        "actor": "system",
    }
    assert command("run", "daily").output.startswith("daily is sent as ")


def test_history_tells_how_late_each_slot_was(command: Command, app: ConventionsApp) -> None:
    """The newest first, with the seconds between the slot and its sending."""
    slot = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(3):
        planned = slot + timedelta(days=number)
        Schedules(app.store).advance("daily", planned, None, Run(planned, planned + timedelta(seconds=2), "m", "beat"))
    found = rows(command("history", "daily", "--json", "--limit", "2"))
    assert [(row["planned_at"], row["late"]) for row in found] == [
        ("2026-01-03T09:00:00+09:00", 2.0),
        ("2026-01-02T09:00:00+09:00", 2.0),
    ]
    assert rows(command("history", "monday", "--json")) == []


def test_pause_and_resume(command: Command) -> None:
    """A paused schedule has no next run and says why; resuming it twice answers no the second time."""
    assert command("pause", "daily", "--reason", "moving house").exit_code == 0
    row = rows(command("list", "--json"))[0]
    assert (row["paused"], row["next_run_at"]) == (True, None)
    shown = rows(command("show", "daily", "--json"))
    assert (shown["pause_reason"], shown["paused_by"]) == ("moving house", "system")
    assert {row["name"] for row in rows(command("next", "--json"))} == {"monday"}
    assert command("resume", "daily").exit_code == 0
    assert command("resume", "daily").exit_code == 1
    assert rows(command("list", "--json"))[0]["paused"] is False


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("show", "nothing"), 1),
        (("run", "nothing"), 1),
        (("history", "nothing"), 1),
        (("pause", "nothing", "--reason", "why"), 1),
        (("pause", "daily"), 2),
        (("next", "--days", "0"), 2),
        (("list", "--limit", "0"), 2),
    ],
)
def test_exit_status(arguments: tuple[str, ...], status: int, command: Command) -> None:
    """1 when there is no such schedule, 2 when the command is used wrongly; the reason is on standard error."""
    result = command(*arguments)
    assert result.exit_code == status
    assert result.stderr
    assert result.stdout == ""
