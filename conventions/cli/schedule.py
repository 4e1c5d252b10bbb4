"""`celery -A <app> schedule`: what runs when, what ran, which beats run. The commands that change it: `schedule_changes.py`."""

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
from celery.bin.base import CeleryCommand

from conventions.app import ConventionsApp
from conventions.cli import schedule_changes, schedule_convert, schedule_history
from conventions.cli.base import app_of, one_line_errors, output_options, print_json, say
from conventions.cli.schedule_options import NAME, Listed, emit_local, local, naming, on_the_wall, seconds
from conventions.cli.shared_options import JSON
from conventions.core.durations import duration
from conventions.schedules.beat_liveness import Beat, Beats, beats_fault
from conventions.schedules.run_history import RunOutcome, failing, failing_words
from conventions.schedules.schedule_store import Schedules
from conventions.schedules.schedule_summary import ScheduleSummary
from conventions.schedules.slots import slots

COLUMNS = ("name", "task", "cron", "next_run_at", "last_run_at", "last_outcome", "paused")
LOOK_BACK = 20  # lines of the history in which we count failures
NEXT = ("planned_at", "name", "task")
BEATS = ("name", "state", "since", "tick_at", "tick_age")
UPCOMING = 5  # slots that `show` prints
MOST_DAYS = 36_500  # days that `next` looks ahead
DAY = 86_400  # seconds


@click.group()
def schedule() -> None:
    """What runs when, what ran, and pause, resume and run now."""


@schedule.command("list", cls=CeleryCommand)
@output_options
@click.pass_context
@one_line_errors
def list_(context: click.Context, as_json: bool, limit: int) -> None:
    """List the schedules, in the order of the file; times are in the app's zone."""
    listed = Listed(context)
    summaries = listed.summaries()
    outcomes = _outcomes(context, listed.app, summaries)
    _say_what_is_wrong(listed.app, summaries, outcomes)
    shown = summaries[: limit + 1]
    rows = [_row(summary) | {"last_outcome": _last(outcomes[summary.listed.name])} for summary in shown]
    if not as_json:
        rows = [
            row | {"paused": _pause(summary), "last_run_at": _last_run(row)}
            for summary, row in zip(shown, rows, strict=True)
        ]
    emit_local(rows, COLUMNS, listed.zone, as_json=as_json, limit=limit)


@schedule.command(cls=CeleryCommand)
@NAME
@JSON
@click.pass_context
@one_line_errors
def show(context: click.Context, name: str, as_json: bool) -> None:
    """Show one schedule: its times in words, arguments, rules, pause, what is wrong with it, and its next slots."""
    listed = Listed(context)
    summary = listed.summary(name)
    outcomes = _outcomes(context, listed.app, [summary])
    _say_what_is_wrong(listed.app, [summary], outcomes)
    whole = _whole(summary) | {"last_outcome": _last(outcomes[summary.listed.name])}
    if as_json:
        print_json(whole)
        return
    for field, value in whole.items():
        if value is not None:
            say(f"{field:13} {_for_people(field, value)}".rstrip())
    say(f"times are those of {listed.zone}", err=True)


@schedule.command("next", cls=CeleryCommand)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--days", type=click.FloatRange(0, MOST_DAYS, min_open=True), default=7, show_default=True,
              help="How far to look.")  # fmt: skip
@output_options
@click.pass_context
@one_line_errors
def next_(context: click.Context, *, names: tuple[str, ...], days: float, as_json: bool, limit: int) -> None:
    """List the coming slots, the earliest first, of all schedules or of these.

    Of a paused schedule it lists only slots after the end of the pause.
    """
    listed = Listed(context)
    chosen = {listed.find(name).name for name in names}
    summaries = {
        summary.listed.name: summary for summary in listed.summaries() if not names or summary.listed.name in chosen
    }
    _say_what_is_wrong(listed.app, list(summaries.values()))
    coming = heapq.merge(*map(_coming_by_name, summaries.values()))
    within = itertools.takewhile(lambda found: found[0] <= summaries[found[1]].now.timestamp() + days * DAY, coming)
    rows = [
        {
            "planned_at": datetime.fromtimestamp(at, summaries[name].zone),
            "name": name,
            "task": summaries[name].listed.task.name,
        }
        for at, name in itertools.islice(within, limit)
    ]
    emit_local(rows, NEXT, listed.zone, as_json=as_json)
    if next(within, None) is not None:
        say(f"these are the first {limit} of more: name a schedule, or raise --limit", err=True)


@schedule.command(cls=CeleryCommand)
@output_options
@click.pass_context
@one_line_errors
def beats(context: click.Context, as_json: bool, limit: int) -> None:
    """List the beats, the leader first. Status 1 when none leads, so that this can be a health check."""
    app = app_of(context)
    found, zone = Beats(app.store).listing(), ZoneInfo(app.settings.timezone)
    emit_local([_beat_row(beat, zone) for beat in found], BEATS, zone, as_json=as_json, limit=limit)
    fault = _beats_fault(app, found)
    if fault is not None:
        say(fault, err=True)
    context.exit(0 if fault is None else 1)


schedule.add_command(schedule_history.history)
schedule.add_command(schedule_convert.convert)
schedule_changes.add_to(schedule)


def _row(summary: ScheduleSummary) -> dict[str, Any]:
    """The fields of a schedule in every listing."""
    last = summary.state.last_run
    with naming(summary.listed.name):
        return {
            "name": summary.listed.name,
            "task": summary.listed.task.name,
            "cron": str(summary.listed.when),
            "next_run_at": summary.next_run_at,
            "last_run_at": summary.last_run_at,
            "last_run_by_hand": last is not None and last.planned_at is None,
            "paused": summary.state.pause is not None,
        }


def _whole(summary: ScheduleSummary) -> dict[str, Any]:
    """The fields of `show`."""
    pause = summary.state.pause
    with naming(summary.listed.name):
        overdue, upcoming = summary.overdue, list(itertools.islice(_coming(summary), UPCOMING))
    return _row(summary) | {
        "words": summary.listed.when.words,
        "arguments": summary.listed.shown_arguments,
        **summary.listed.rules,
        "pause_reason": pause.reason if pause else None,
        "paused_by": pause.actor if pause else None,
        "paused_at": summary.local(pause.since) if pause else None,
        "paused_until": summary.local(pause.until) if pause else None,
        "late": seconds(summary.lateness),
        "overdue": seconds(overdue),
        "fault": summary.state.fault,
        "beat": _read_by_beat(summary),
        "upcoming": upcoming,
    }


def _read_by_beat(summary: ScheduleSummary) -> str:
    if summary.is_new:
        return "has not seen it"
    return "runs another version" if summary.other_version else "runs this"


def _coming(summary: ScheduleSummary) -> Iterator[datetime]:
    """The coming slots, without an end; none while it is paused without an end."""
    with naming(summary.listed.name):
        first = summary.next_run_at
        if first is not None:
            yield first
            yield from slots(summary.listed.when, first, summary.zone)


def _coming_by_name(summary: ScheduleSummary) -> Iterator[tuple[float, str]]:
    return ((slot.timestamp(), summary.listed.name) for slot in _coming(summary))


def _beats_fault(app: ConventionsApp, found: list[Beat]) -> str | None:
    """What is wrong with the beats, with a command to paste."""
    return beats_fault(found, app.main)


def _outcomes(
    context: click.Context, app: ConventionsApp, summaries: Sequence[ScheduleSummary]
) -> dict[str, list[RunOutcome]]:
    """What became of the last runs of each schedule, newest first."""
    histories = Schedules(app.store).histories([summary.listed.name for summary in summaries], LOOK_BACK)
    runs = [run for found in histories.values() for run in found]
    outcomes = iter(schedule_history.read_outcomes(context, app, runs)) if runs else iter(())
    return {name: list(itertools.islice(outcomes, len(found))) for name, found in histories.items()}


def _last(outcomes: Sequence[RunOutcome]) -> str | None:
    return outcomes[0].word if outcomes else None


def _say_what_is_wrong(
    app: ConventionsApp,
    summaries: Sequence[ScheduleSummary],
    outcomes: Mapping[str, Sequence[RunOutcome]] | None = None,
) -> None:
    """Print on standard error: a line for the beats, and a line for each schedule with a fault."""
    fault = _beats_fault(app, Beats(app.store).listing())
    if fault is not None:
        say(fault, err=True)
    for summary in summaries:
        faults = list(_faults(summary, led=fault is None))
        known = (outcomes or {}).get(summary.listed.name, ())
        if count := failing([one.word for one in known]):
            error = next((one.error for one in known if one.error), None)
            faults.append(failing_words(count) + (f": {error}" if error else ""))
        if faults:
            say(f"{summary.listed.name}: {'; '.join(faults)}", err=True)


def _faults(summary: ScheduleSummary, *, led: bool) -> Iterator[str]:
    with naming(summary.listed.name):
        overdue = summary.overdue
    if overdue is not None:
        yield f"overdue, a slot waits for {duration(overdue)}"
    if summary.state.fault is not None:
        yield f"the last try to send it failed: {' '.join(summary.state.fault.split())}"
    if summary.is_new and led:
        yield "the beat that leads does not have it: restart beat, which reads its file at its start"
    elif summary.other_zone is not None:
        yield f"the beat plans in {summary.other_zone}, this command in {summary.zone}: set CONVENTIONS_TIMEZONE alike"
    elif summary.other_version:
        yield "the beat runs another version than the file here: restart beat, or update this checkout"


def _beat_row(beat: Beat, zone: ZoneInfo) -> dict[str, Any]:
    return {
        "name": beat.name,
        "state": beat.state,
        "since": local(beat.since, zone),
        "tick_at": local(beat.tick_at, zone),
        "tick_age": seconds(beat.tick_age),
    }


def _last_run(row: Mapping[str, Any]) -> str | None:
    """When it ran last, for people: a run by hand takes the place of that of its slot."""
    at = row["last_run_at"]
    by_hand = " (by hand)" if row["last_run_by_hand"] else ""
    return None if at is None else f"{on_the_wall(at)}{by_hand}"


def _pause(summary: ScheduleSummary) -> str:
    """The pause of a schedule, for people."""
    if summary.state.pause is None:
        return "no"
    until = summary.local(summary.state.pause.until)
    return f"until {on_the_wall(until)}" if until else "yes"


def _for_people(field: str, value: Any) -> str:
    match field, value:
        case _, None:
            text = ""
        case "late", float():
            text = f"{value:g} s"
        case "within" | "overdue", float():
            text = duration(value)
        case "arguments", dict():
            text = ", ".join(f"{name}={shown}" for name, shown in value.items())
        case "paused" | "last_run_by_hand", bool():
            text = "yes" if value else "no"
        case _, datetime():
            text = on_the_wall(value)
        case "upcoming", list():
            text = ", ".join(map(on_the_wall, value))
        case _:
            text = str(value)
    return text
