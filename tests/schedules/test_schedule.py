"""Declaring schedules: what they compute for a slot, and what is refused."""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from conventions import ImmediateTask, ScheduledTask, create_app
from conventions.core.errors import ConfigurationError, ScheduleError
from conventions.schedules.catch_up import Due, Passed
from conventions.schedules.cron import cron
from conventions.schedules.interval import every
from conventions.schedules.schedule import Schedule, planned_date, previous_day, week_of
from conventions.schedules.schedule_module import load_schedule
from tests.workers import forget_applications, remembering_current

TOKYO = ZoneInfo("Asia/Tokyo")
DAILY = cron("0 9 * * *")
NOBODY = "redis://127.0.0.1:1"  # an address at which nobody answers: none is asked


class Report(ScheduledTask):
    """Report one day."""

    name = "test_schedule.Report"

    def run(self, day: date, title: str = "daily") -> None: ...


class Tidy(ImmediateTask):
    """Tidy up."""

    name = "test_schedule.Tidy"
    not_idempotent = "nothing is left to tidy the second time"

    def run(self) -> None: ...


def tokyo(*parts: int) -> datetime:
    """A moment in Tokyo."""
    year, month, day, *rest = parts
    return datetime(year, month, day, *rest, tzinfo=TOKYO)  # type: ignore[arg-type, misc]  # hour and minute


def title_of(planned: datetime) -> str:
    """A function of a team's own."""
    return f"report of {planned:%H:%M}"


def test_arguments_are_computed_from_the_slot() -> None:
    """Functions get the planned time in the app's zone; other values stay as they are."""
    entry = Schedule("report", DAILY, Report, {"day": planned_date, "title": title_of})
    assert entry.arguments_at(tokyo(2026, 1, 1, 9)) == {"day": date(2026, 1, 1), "title": "report of 09:00"}
    assert Schedule("plain", DAILY, Report, {"day": "2026-05-01"}).arguments_at(tokyo(2026, 1, 1)) == {
        "day": "2026-05-01"
    }
    assert entry.shown_arguments == {"day": "planned_date()", "title": "title_of()"}


def test_functions_of_the_planned_time() -> None:
    """`previous_day` crosses a year, and `week_of` is the Monday of the week."""
    assert previous_day(tokyo(2026, 1, 1, 9)) == date(2025, 12, 31)
    assert planned_date(tokyo(2028, 2, 29, 23)) == date(2028, 2, 29)
    assert [week_of(tokyo(2026, 11, day, 10)) for day in (22, 23, 29)] == [
        date(2026, 11, 16), date(2026, 11, 23), date(2026, 11, 23)
    ]  # fmt: skip


def test_the_id_is_made_of_name_and_slot() -> None:
    """One slot has one id in every zone and process; another schedule or another slot has another."""
    entry, other = Schedule("a", DAILY, Tidy), Schedule("b", DAILY, Tidy)
    slot = tokyo(2026, 1, 1, 9)
    assert entry.message_id(slot) == entry.message_id(slot.astimezone(UTC)) == "57f351d4-08ce-5bd3-88b7-c16def9a41f2"
    assert len({entry.message_id(slot), other.message_id(slot), entry.message_id(slot + timedelta(days=1))}) == 3


def test_what_is_due() -> None:
    """By the entry's rule and window; nothing is before the first slot, or when time stepped back."""
    cursor, later = tokyo(2026, 1, 1, 9), tokyo(2026, 1, 4, 12)
    entry = Schedule("a", DAILY, Tidy)
    assert entry.due(cursor, tokyo(2026, 1, 2, 8, 59), TOKYO) == Due()
    assert entry.due(cursor, tokyo(2026, 1, 2, 9), TOKYO) == Due((tokyo(2026, 1, 2, 9),))
    assert entry.due(cursor, later, TOKYO).send == (tokyo(2026, 1, 4, 9),)
    assert entry.due(cursor, tokyo(2025, 12, 30), TOKYO) == Due()
    every_day = [tokyo(2026, 1, day, 9) for day in (2, 3, 4)]
    assert Schedule("a", DAILY, Tidy, catch_up="all").due(cursor, later, TOKYO) == Due(tuple(every_day))
    window = Schedule("a", DAILY, Tidy, catch_up="all", within=timedelta(days=2)).due(cursor, later, TOKYO)
    assert window == Due(tuple(every_day[1:]), Passed(every_day[0], every_day[0], 1))
    assert Schedule("a", DAILY, Tidy, catch_up="none").due(cursor, later, TOKYO) == Due(
        (), Passed(every_day[0], every_day[-1], 3)
    )


REFUSED: list[tuple[str, Callable[[], Any]]] = [
    ("'tasks.Tidy' is no task class: import the class", lambda: Schedule("a", DAILY, "tasks.Tidy")),  # type: ignore[arg-type]
    ("is no task class", lambda: Schedule("a", DAILY, planned_date)),  # type: ignore[arg-type]
    ("ScheduledTask is abstract", lambda: Schedule("a", DAILY, ScheduledTask)),
    ('write cron\\("0 9 \\* \\* \\*"\\)', lambda: Schedule("a", "0 9 * * *", Tidy)),  # type: ignore[arg-type]
    ("missing a required argument: 'day'", lambda: Schedule("a", DAILY, Report)),
    (
        "Report takes no argument 'dya'; it takes day, title",
        lambda: Schedule("a", DAILY, Report, {"day": planned_date, "dya": 1}),
    ),
    ("'day': Input should be a valid date", lambda: Schedule("a", DAILY, Report, {"day": title_of})),
    ("'day': Input should be a valid date", lambda: Schedule("a", DAILY, Report, {"day": 20260101})),
    ("a function with a name", lambda: Schedule("a", DAILY, Report, {"day": lambda planned: planned.date()})),
    ("raised TypeError", lambda: Schedule("a", DAILY, Report, {"day": timedelta.total_seconds})),
    ("write def, not async def", lambda: Schedule("a", DAILY, Report, {"day": later})),
    ("the days of a calendar are dates", lambda: Schedule("a", cron("0 9 * * *", only={"2026-12-01"}), Tidy)),  # type: ignore[arg-type]
    ("the days of a calendar are dates", lambda: Schedule("a", cron("0 9 * * *", not_on=[tokyo(2026, 12, 1)]), Tidy)),
    ("given by name", lambda: Schedule("a", DAILY, Report, [planned_date])),  # type: ignore[arg-type]
    ("a name has letters", lambda: Schedule("a b", DAILY, Tidy)),
    ("a name has letters", lambda: Schedule("", DAILY, Tidy)),
    ("never comes", lambda: Schedule("a", cron("0 9 * * *", only=frozenset()), Tidy)),
    ("its calendar raised", lambda: Schedule("a", cron("0 9 * * *", only=no_calendar), Tidy)),
    ("catch_up='last': write 'latest' or 'none' or 'all'", lambda: Schedule("a", DAILY, Tidy, catch_up="last")),  # type: ignore[arg-type]
    ("overlap='queue': write 'allow' or 'skip'", lambda: Schedule("a", DAILY, Tidy, overlap="queue")),  # type: ignore[arg-type]
    *(
        (
            r"write how late a slot may run, such as timedelta\(hours=2\)",
            partial(Schedule, "a", DAILY, Tidy, within=within),  # type: ignore[arg-type]
        )
        for within in (0, -1, True, "1h", float("nan"), float("inf"), timedelta(0), timedelta(seconds=-1))
    ),
]


async def later(planned: datetime) -> date:
    """No function that can be called for a value."""
    return planned.date()


def no_calendar(day: date) -> bool:
    """A calendar with a fault."""
    raise LookupError(day)


@pytest.mark.parametrize(("hint", "declare"), REFUSED)
def test_a_faulty_schedule_is_refused_where_it_is_declared(hint: str, declare: Callable[[], Any]) -> None:
    """The message names the schedule's fault, or what to write."""
    with pytest.raises(ScheduleError, match=hint):
        declare()


class Source:
    """What a team's functions read; it may be away."""

    error: ClassVar[Exception | None] = None


def from_source(planned: datetime) -> date:
    """An argument that is read."""
    if Source.error is not None:
        raise Source.error
    return planned.date()


def days_from_source(day: date) -> bool:
    """A calendar that is read."""
    if Source.error is not None:
        raise Source.error
    return True


@pytest.mark.parametrize("error", [OSError("no such file"), RedisConnectionError("refused"), TimeoutError()])
def test_what_is_only_away_does_not_keep_a_schedule_from_being_read(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beat must start, and somebody may want to pause it: that is said, and tried again when a slot comes."""
    monkeypatch.setattr(Source, "error", error)
    Schedule("a", DAILY, Report, {"day": from_source})
    Schedule("b", cron("0 9 * * *", only=days_from_source), Tidy)
    assert [record.message.partition(":")[0] for record in caplog.records] == ['Schedule("a")', 'Schedule("b")']
    monkeypatch.setattr(Source, "error", ZeroDivisionError())
    with pytest.raises(ScheduleError, match="raised ZeroDivisionError"):
        Schedule("a", DAILY, Report, {"day": from_source})


def test_a_calendar_that_has_ended_is_no_fault_of_what_is_written(caplog: pytest.LogCaptureFixture) -> None:
    """A set of dates ends some day, and the other schedules must go on."""
    Schedule("a", cron("0 9 * * *", only={date(2020, 12, 1)}), Report, {"day": planned_date})
    assert "it never comes again, as its calendar has come to its end" in caplog.text


# The list.


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Schedule, ...]]]:
    """Load a `beat_schedule.py` of this text, as beat does in its folder."""
    monkeypatch.chdir(tmp_path)

    def load(text: str | None, **options: Any) -> tuple[Schedule, ...]:
        sys.modules.pop("beat_schedule", None)
        if text is not None:
            (tmp_path / "beat_schedule.py").write_text(text, encoding="utf-8")
        forget_applications()
        return load_schedule(create_app("some", **{"packages": [], "broker_url": NOBODY} | options))

    with remembering_current():
        yield load
    sys.modules.pop("beat_schedule", None)


IMPORTS = f"""from conventions.schedules.cron import cron
from conventions.schedules.schedule import Schedule
from {__name__} import Tidy
"""


def test_the_list_is_read_from_the_current_folder(load: Callable[..., tuple[Schedule, ...]]) -> None:
    """`beat_schedule.py` beside the command is the default; without it the schedule is empty."""
    assert load(None) == ()
    (entry,) = load(IMPORTS + 'SCHEDULE = [Schedule("a", cron("@daily"), Tidy)]')
    assert entry.name == "a"
    assert load("", schedule=None) == ()


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["has no SCHEDULE"]),
        ("SCHEDULE = {}", ["must be a list of Schedule"]),
        ("SCHEDULE = ['daily']", ["'daily' is no Schedule"]),
        (
            IMPORTS + 'SCHEDULE = [Schedule(name, cron("@daily"), Tidy) for name in ("a", "b", "a", "b")] + [7]',
            ["7 is no Schedule", '2 schedules are called "a"', '2 schedules are called "b"'],
        ),
        (IMPORTS + 'SCHEDULE = [\n  Schedule("a", cron("61 * * * *"), Tidy)]', ["line 5", "minute cannot be '61'"]),
        ("import nowhere_to_be_found", ["line 1", "ModuleNotFoundError"]),
        ("SCHEDULE = [1/0]", ["line 1", "ZeroDivisionError"]),
        ("\nSCHEDULE = [", ["SyntaxError", "beat_schedule.py, line 2)"]),
    ],
)
def test_a_faulty_list_is_reported_whole(
    text: str, faults: list[str], load: Callable[..., tuple[Schedule, ...]]
) -> None:
    """Beat reports every fault with its place, in words and without a traceback."""
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    for fault in faults:
        assert fault in str(caught.value)


def test_a_named_module_that_is_missing_is_reported(load: Callable[..., tuple[Schedule, ...]]) -> None:
    """A schedule that `create_app` names must exist."""
    with pytest.raises(ConfigurationError, match="no module not_there; create it"):
        load(None, schedule="not_there:SCHEDULE")


STRAY = """from conventions import ImmediateTask
from conventions.schedules.cron import cron
from conventions.schedules.schedule import Schedule

class Stray(ImmediateTask):
    "Belongs to no package."
    not_idempotent = "it does nothing"
    def run(self) -> None: ...

SCHEDULE = [Schedule("a", cron("@daily"), Stray)]
"""


def test_a_task_that_no_worker_knows_is_refused(load: Callable[..., tuple[Schedule, ...]], tmp_path: Path) -> None:
    """Workers do not read the schedule: a task that only this file brings would be a dead letter at each slot."""
    fault = r"no worker knows beat_schedule.Stray, .* add 'beat_schedule' to create_app"
    with pytest.raises(ConfigurationError, match=fault):
        load(STRAY)
    forget_applications()
    app = create_app("another", packages=[], broker_url=NOBODY)
    assert "beat_schedule.Stray" in app.worker_tasks  # of this process, by now
    del sys.modules["beat_schedule"]
    (tmp_path / "beat_schedule.py").write_text(STRAY.replace("Stray", "Astray"), encoding="utf-8")
    for _ in range(2):  # also where it is imported already
        with pytest.raises(ConfigurationError, match=fault.replace("Stray", "Astray")):
            load_schedule(app)
    (tmp_path / "its_tasks.py").write_text(STRAY.replace("Stray", "Known"), encoding="utf-8")
    try:
        (entry,) = load("from its_tasks import SCHEDULE", packages=["its_tasks"])
        assert entry.task.name == "its_tasks.Known"
    finally:
        sys.modules.pop("its_tasks", None)


def test_entries_of_celerys_own_list_are_not_passed_over() -> None:
    """They would never run, and nobody would notice."""
    app = create_app("some", packages=[], broker_url=NOBODY, schedule=None)
    app.conf.beat_schedule = {"nightly": {"task": "tasks.add", "schedule": 30.0}}
    with pytest.raises(
        ConfigurationError, match="beat_schedule of Celery's configuration is not read, and has nightly"
    ):
        load_schedule(app)


def test_every_works_as_a_schedule() -> None:
    """An interval is as good as a cron expression."""
    entry = Schedule("a", every(timedelta(minutes=5)), Tidy)
    assert entry.due(tokyo(2026, 1, 1), tokyo(2026, 1, 1, 0, 7), TOKYO) == Due((tokyo(2026, 1, 1, 0, 5),))


def test_this_repositorys_schedule_is_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report 09:00, clean-up 02:00, weekly report on Monday 10:00, backup; with the day and week that are complete."""
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.delitem(sys.modules, "beat_schedule", raising=False)
    entries = {entry.name: entry for entry in load_schedule(create_app("tasks", broker_url=NOBODY))}
    assert {name: str(entry.when) for name, entry in entries.items()} == {
        "daily-report": "0 9 * * *",
        "weekly-report": "0 10 * * MON",
        "clean-up": "0 2 * * *",
        "backup": "30 3 * * *",
    }
    assert entries["daily-report"].arguments_at(tokyo(2027, 1, 1, 9)) == {"day": date(2026, 12, 31)}
    assert entries["weekly-report"].arguments_at(tokyo(2027, 1, 4, 10)) == {"week": date(2026, 12, 28)}
