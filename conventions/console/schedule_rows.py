"""`Row`: what the pages show of a schedule: its state, its history, its rules in words (R10)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from conventions.console import display
from conventions.console.run_line import RunLine
from conventions.core.durations import duration
from conventions.schedules.beat_liveness import Beat, beats_fault
from conventions.schedules.catch_up import ON_TIME
from conventions.schedules.cron import Cron
from conventions.schedules.run_history import failing, failing_words
from conventions.schedules.schedule import Schedule
from conventions.schedules.schedule_summary import ScheduleSummary
from conventions.schedules.slots import slots

MOST_RECENT_RUNS, UPCOMING = 20, 5
CATCH_UP = {
    "latest": "of slots that passed while no beat ran, the last one",
    "all": "of slots that passed while no beat ran, each; the newest 1,000 at the most",
    "none": "of slots that passed while no beat ran, only one that is on time",
}
OVERLAP = {
    "allow": "a run begins beside one that has not ended",
    "skip": "a slot is skipped while an earlier run has not ended",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One schedule, for the pages.

    Attributes:
        summary: the schedule with its state.
        upcoming: its next slots; empty while it is paused without an end.
        overdue: for how many seconds an unsent slot has been due; `None` if none is.
        faults: why it does not run as it should.
        lines: its history, newest first.
    """

    summary: ScheduleSummary
    upcoming: Sequence[datetime]
    overdue: float | None
    faults: Sequence[str]
    lines: Sequence[RunLine]

    @property
    def name(self) -> str:
        """The name of the schedule."""
        return self.summary.listed.name

    @property
    def expression(self) -> str:
        """When it runs, as written; a calendar is shown only in words."""
        when = self.summary.listed.when
        return when.expression if isinstance(when, Cron) else str(when)

    @property
    def recent_runs(self) -> Sequence[RunLine]:
        """The last lines of its history, oldest first."""
        return self.lines[:MOST_RECENT_RUNS][::-1]

    @property
    def lag(self) -> str:
        """How late its last run was sent."""
        if self.summary.state.last_run is None:
            return ""
        late = self.summary.lateness
        return "by hand" if late is None else display.short_duration(late)

    @property
    def live_values(self) -> dict[str, Any]:
        """The values that change each time they are read."""
        late = "" if self.overdue is None else f"overdue {duration(self.overdue)}"
        paused = self.summary.state.pause is not None
        return {
            "id": self.name,
            "state": "paused" if paused else "overdue" if late else "failing" if self.faults else "on",
            "texts": {"overdue": late},
            "is": {"overdue": bool(late), "paused": paused},
        }

    @property
    def stable_values(self) -> tuple[Any, ...]:
        """The values that seldom change. If they do, the page replaces its rows."""
        summary, pause = self.summary, self.summary.state.pause
        shown = [(line.text, line.sent, line.page) for line in self.lines]
        return (
            self.upcoming,
            summary.last_run_at,
            self.lag,
            pause,
            summary.other_version,
            summary.is_new,
            self.faults,
            shown,
        )


def build_row(summary: ScheduleSummary, lines: Sequence[RunLine], *, sees_values: bool) -> Row:
    """Make the row of a schedule.

    Args:
        summary: the schedule with its state.
        lines: its history, newest first.
        sees_values: whether the visitor may see texts that may contain values of arguments.
    """
    faults: list[str] = []
    upcoming: tuple[datetime, ...] = ()
    overdue = None
    if summary.state.fault is not None:
        faults.append(f"the last try to send it failed{f': {summary.state.fault}' if sees_values else ''}")
    if count := failing([line.word for line in lines]):
        faults.append(failing_words(count))
    try:
        upcoming, overdue = _upcoming(summary), summary.overdue
    except Exception as error:  # noqa: BLE001  # an error of a team's calendar must not hide the other schedules
        faults.append(f"its slots cannot be told: {type(error).__name__}{f': {error}' if sees_values else ''}")
    return Row(summary, upcoming, overdue, tuple(faults), lines)


def _upcoming(summary: ScheduleSummary) -> tuple[datetime, ...]:
    first = summary.next_run_at
    if first is None:
        return ()
    return (first, *islice(slots(summary.listed.when, first, summary.zone), UPCOMING - 1))


def rules_in_words(listed: Schedule) -> list[tuple[str, str]]:
    """The rules of a schedule in words, without its time, task and arguments."""
    window = listed.window or (ON_TIME if listed.catch_up == "none" else None)
    late = "however late it is" if window is None else f"at most {duration(window.total_seconds())} late"
    return [
        ("Catch up", f"{listed.catch_up}: {CATCH_UP[listed.catch_up]}"),
        ("Within", f"a slot is sent {late}"),
        ("Overlap", f"{listed.overlap}: {OVERLAP[listed.overlap]}"),
    ]


def live_values_of(beats: Sequence[Beat]) -> list[dict[str, Any]]:
    """The live values of beats: what is wrong with all of them (`*`), and when each of them last looked at the schedules."""
    fault = beats_fault(list(beats))
    text = (fault or "").replace("`", "")
    everybody = {
        "id": "*",
        "state": "well" if fault is None else "unwell",
        "texts": {"fault": text[:1].upper() + text[1:]},
        "is": {"leaderless": fault is not None},
    }
    return [everybody, *(_values_of(beat) for beat in beats)]


def _values_of(beat: Beat) -> dict[str, Any]:
    seen = "now" if beat.tick_age < 1 else f"{duration(beat.tick_age)} ago"
    return {"id": beat.name, "state": beat.state, "texts": {"state": beat.state, "seen": seen}, "is": {}}
