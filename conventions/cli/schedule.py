"""`celery -A <app> schedule`: what runs when, what ran, and pause, resume and run now."""

import heapq
import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import click
from celery.bin.base import CeleryCommand
from celery.utils import uuid

from conventions.actor import current_actor
from conventions.app import ConventionsApp
from conventions.cli.base import app_of, emit, one_line_errors, output_options, print_json
from conventions.cron import slots
from conventions.schedule import Schedule, load_schedule
from conventions.schedules import Run, Schedules, State

COLUMNS = ("name", "task", "cron", "next_run_at", "last_run_at", "paused")
UPCOMING = 5  # slots that `show` prints

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")


@click.group()
def schedule() -> None:
    """What runs when, what ran, and pause, resume and run now."""


class View:
    """The schedules of the application of a command, and their state."""

    def __init__(self, context: click.Context) -> None:
        self.context = context
        self.app: ConventionsApp = app_of(context)
        self.app.loader.import_default_modules()
        self.listed = {entry.name: entry for entry in load_schedule(self.app)}
        self.zone = ZoneInfo(self.app.settings.timezone)
        self.state = Schedules(self.app.store)

    def find(self, name: str) -> Schedule:
        """The schedule of this name; ends the command with status 1 when there is none."""
        if name not in self.listed:
            click.echo(f"there is no schedule {name}; there are: {', '.join(self.listed) or 'none'}", err=True)
            self.context.exit(1)
        return self.listed[name]

    def row(self, entry: Schedule, state: State, now: datetime) -> dict[str, Any]:
        """The fields of one schedule as every listing names them; nothing comes next while it is paused."""
        following = None if state.pause else entry.when.next_slot(now, self.zone)
        return {
            "name": entry.name,
            "task": entry.task.name,
            "cron": str(entry.when),
            "next_run_at": following,
            "last_run_at": self.local(state.last_run.sent_at) if state.last_run else None,
            "paused": state.pause is not None,
        }

    def local(self, moment: datetime | None) -> datetime | None:
        """A time in the app's zone, to the second."""
        return moment and moment.astimezone(self.zone).replace(microsecond=0)

    def run_row(self, run: Run) -> dict[str, Any]:
        """The fields of one run."""
        late = None if run.planned_at is None else round((run.sent_at - run.planned_at).total_seconds(), 3)
        return {
            "planned_at": self.local(run.planned_at),
            "sent_at": self.local(run.sent_at),
            "late": late,
            "id": run.id,
            "actor": run.actor,
        }


@schedule.command("list", cls=CeleryCommand)
@output_options
@click.pass_context
@one_line_errors
def list_(context: click.Context, as_json: bool, limit: int) -> None:
    """List the schedules, in the order of the file; times are in the app's zone."""
    view = View(context)
    now, states = view.state.read(view.listed)
    rows = [view.row(entry, states[name], now) for name, entry in view.listed.items()]
    emit(rows[:limit], COLUMNS, as_json=as_json)


@schedule.command(cls=CeleryCommand)
@click.argument("name")
@json_option
@click.pass_context
@one_line_errors
def show(context: click.Context, name: str, as_json: bool) -> None:
    """Show one schedule: its times in words, arguments, pause and next slots."""
    view = View(context)
    entry = view.find(name)
    now, states = view.state.read([name])
    pause = states[name].pause
    whole = view.row(entry, states[name], now) | {
        "words": entry.when.words,
        "arguments": entry.shown_arguments,
        "catch_up": entry.catch_up,
        "pause_reason": pause.reason if pause else None,
        "paused_by": pause.actor if pause else None,
        "paused_at": view.local(pause.since) if pause else None,
        "upcoming": list(itertools.islice(slots(entry.when, now, view.zone), UPCOMING)),
    }
    if as_json:
        print_json(whole)
        return
    for field, value in whole.items():
        shown = [str(one) for one in value] if isinstance(value, list) else value
        click.echo(f"{field:13} {', '.join(shown) if isinstance(shown, list) else '' if shown is None else shown}")


@schedule.command("next", cls=CeleryCommand)
@click.option("--days", type=click.FloatRange(0, min_open=True), default=7, show_default=True, help="How far to look.")
@output_options
@click.pass_context
@one_line_errors
def next_(context: click.Context, days: float, as_json: bool, limit: int) -> None:
    """List the slots to come, the earliest first; paused schedules have none."""
    view = View(context)
    now, states = view.state.read(view.listed)
    running = [entry for name, entry in view.listed.items() if states[name].pause is None]
    coming = heapq.merge(*(_coming(entry, now, view.zone) for entry in running))
    until = now + timedelta(days=days)
    within = itertools.takewhile(lambda found: found[0] <= until.timestamp(), coming)
    rows = [
        {"planned_at": datetime.fromtimestamp(at, view.zone), "name": name, "task": view.listed[name].task.name}
        for at, name in itertools.islice(within, limit)
    ]
    emit(rows, ("planned_at", "name", "task"), as_json=as_json)


def _coming(entry: Schedule, now: datetime, zone: ZoneInfo) -> Iterator[tuple[float, str]]:
    return ((slot.timestamp(), entry.name) for slot in slots(entry.when, now, zone))


@schedule.command(cls=CeleryCommand)
@click.argument("name")
@json_option
@click.pass_context
@one_line_errors
def run(context: click.Context, name: str, as_json: bool) -> None:
    """Run one schedule now, with the arguments of its latest slot; also while it is paused."""
    view = View(context)
    entry = view.find(name)
    now = view.state.now()
    latest = entry.when.latest_slot(now, view.zone) or now.astimezone(view.zone)
    message_id = uuid()
    view.app.tasks[entry.task.name].apply_async(kwargs=entry.arguments_at(latest), task_id=message_id)
    sent = Run(None, view.state.now(), message_id, current_actor())
    view.state.record(name, sent)
    if as_json:
        print_json({"name": name, "task": entry.task.name, **view.run_row(sent)})
    else:
        click.echo(f"{name} is sent as {message_id}")


@schedule.command(cls=CeleryCommand)
@click.argument("name")
@click.option("--reason", required=True, help="Why; shown to everyone.")
@click.pass_context
@one_line_errors
def pause(context: click.Context, name: str, reason: str) -> None:
    """Send nothing for one schedule until `resume`, whatever is restarted or deployed meanwhile."""
    view = View(context)
    view.state.pause(view.find(name).name, reason, current_actor())
    click.echo(f"{name} is paused: {reason}")


@schedule.command(cls=CeleryCommand)
@click.argument("name")
@click.pass_context
@one_line_errors
def resume(context: click.Context, name: str) -> None:
    """Lift a pause; slots that passed meanwhile are not caught up. Status 1 when it was not paused."""
    view = View(context)
    following = view.find(name).when.next_slot(view.state.now(), view.zone)
    if not view.state.resume(name, following):
        click.echo(f"{name} is not paused", err=True)
        context.exit(1)
    click.echo(f"{name} runs again, next at {following}")


@schedule.command(cls=CeleryCommand)
@click.argument("name")
@output_options
@click.pass_context
@one_line_errors
def history(context: click.Context, name: str, as_json: bool, limit: int) -> None:
    """List what was sent for one schedule, the newest first; `late` is in seconds."""
    view = View(context)
    rows = [view.run_row(one) for one in view.state.history(view.find(name).name, limit)]
    emit(rows, ("planned_at", "sent_at", "late", "id", "actor"), as_json=as_json)
