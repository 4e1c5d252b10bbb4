"""`RunLine`: the line of a run on the pages: an icon and a sentence for its outcome, and the cells of the table (R10).

The icons differ in shape as well as in color, so that color-blind people can tell them apart.
"""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from conventions.console import display
from conventions.core.time_units import local_time
from conventions.schedules.run_history import PARTLY, RunOutcome
from conventions.schedules.schedule_state import Run

# SVG paths, ten units wide and twenty high. Every second one of nested outlines is a hole.
ICONS = {
    "succeeded": "M0 0h10v20H0z",
    "running": "M1 3l8 7-8 7z",
    "waiting": "M0 0h10v20H0zM1.5 1.5v17h7v-17z",
    "retrying": "M0 0h10v20H0zM1.5 1.5v9h7v-9z",
    "dead": (
        "M0 0h10v20H0zM5 8.6l2.3-2.3 1.4 1.4L6.4 10l2.3 2.3-1.4 1.4L5 11.4l-2.3 2.3-1.4-1.4L3.6 10 1.3 7.7l1.4-1.4z"
    ),
    "failed": "M0 0h10v20H0zM1.5 1.5v17h7v-17zM4 4h2v8H4zM4 14h2v2H4z",
    "cancelled": "M0 9h10v11H0zM2 13.5h6v2H2z",
    "skipped": "M0 14h10v6H0z",
    "missed": "M5 5l5 5-5 5-5-5z",
    "paused": "M1 5h3v10H1zM6 5h3v10H6z",
    "unknown": "M3 10a2 2 0 1 0 4 0a2 2 0 1 0-4 0z",
}
SAME_ICON_AS = {  # outcomes without an icon of their own
    "revoked": "cancelled",
    "expired": "cancelled",
    "purged": "cancelled",
    "lost": "missed",
    "superseded": "cancelled",
    "duplicate": "cancelled",
    "hung": "retrying",
    "interrupted": "retrying",
    PARTLY: "failed",
}
REASONS = {  # explanations of outcomes
    "duplicate": "a job with the same key ran before",
    "superseded": "another worker took it over",
    "expired": "it began too late",
    "interrupted": "its process or its worker ended; it begins again",
    "purged": "somebody emptied its queue",
    "lost": "its message is gone from Redis",
}


@dataclass(frozen=True, slots=True)
class RunLine:
    """One line of a schedule's history, for people.

    Attributes:
        icon: one of `ICONS`.
        word: its outcome, in one word.
        planned: its slot; or the first and the last slot of several.
        sent: when it was sent, or when beat decided not to send it.
        late: how much later than its slot it was sent.
        runtime: the run time of its last execution.
        why: why it was not sent, was sent by hand, or did not run.
        text: all of this in one sentence.
        page: the name of the route to its page, or empty.
    """

    run: Run
    icon: str
    word: str
    planned: str
    sent: str
    late: str
    runtime: str
    why: str
    text: str
    page: str

    @property
    def path(self) -> str:
        """Its icon, as an SVG path."""
        return ICONS[self.icon]


def run_line(run: Run, outcome: RunOutcome, zone: ZoneInfo, *, is_batch: bool, sees_values: bool) -> RunLine:
    """Make the line of a run.

    Args:
        run: the run, sent or not.
        outcome: how it ended.
        zone: the time zone of the settings.
        is_batch: whether a batch has its id.
        sees_values: whether the visitor may see texts that may contain values of arguments.
    """
    planned = "by hand" if run.planned_at is None else slot_text(run.planned_at, zone)
    if run.first_at is not None:
        planned = f"{slot_text(run.first_at, zone)} to {planned}, {run.count:,} slots"
    late = "" if run.lateness is None else display.short_duration(run.lateness)
    runtime = "" if outcome.runtime is None else display.short_duration(outcome.runtime)
    word = outcome.word
    why = _why(run, word, sees_values=sees_values) or (outcome.error if word == PARTLY and outcome.error else "")
    text = f"{slot_text(run.sent_at, zone)}, by hand" if run.planned_at is None else planned
    text += f": {word}"
    if word == "dead" and outcome.ended_at is not None:  # from the send to the end, with all attempts and waits
        text += f" after {display.short_duration((outcome.ended_at - run.sent_at).total_seconds())}"
    elif runtime:
        text += f" in {runtime}" if word == "succeeded" else f" after {runtime}"
    text += (f", sent {late} late" if late else "") + (f": {why}" if why else "")
    return RunLine(
        run=run,
        icon=icon_of(word),
        word=word,
        planned=planned,
        sent=local_time(run.sent_at, zone.key),
        late=late,
        runtime=runtime,
        why=why,
        text=text,
        page="conventions-batch" if is_batch else "conventions-letter" if word == "dead" else "",
    )


def icon_of(word: str) -> str:
    """The icon for an outcome."""
    icon = SAME_ICON_AS.get(word, word)
    return icon if icon in ICONS else "unknown"


def slot_text(moment: datetime, zone: ZoneInfo) -> str:
    """A planned time in the time zone of the settings, with seconds only if they are not 0."""
    there = moment.astimezone(zone)
    return there.strftime("%Y-%m-%d %H:%M:%S %Z" if there.second else "%Y-%m-%d %H:%M %Z")


def _why(run: Run, word: str, *, sees_values: bool) -> str:
    if run.what == "skipped":
        return f"{run.note} had not ended"
    if run.what == "missed":
        return "too late to be sent"
    if run.what == "paused":
        return f"paused by {run.actor}: {run.note}"
    if run.what == "failed":
        return f"its message could not be made{f': {run.note}' if sees_values and run.note else ''}"
    return "; ".join(filter(None, (REASONS.get(word), run.note)))
