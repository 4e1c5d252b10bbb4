"""`celery -A <app> pause`: let workers begin nothing of a queue, of a task, or at one of them; and list what is paused."""

from typing import Any
from zoneinfo import ZoneInfo

import click
from celery.bin.base import CeleryCommand

from conventions.cli.actor_option import actor_option
from conventions.cli.base import app_of, emit, one_line_errors, output_options, say, written
from conventions.cli.pause_options import hear, named, zone_of
from conventions.cli.schedule_options import NAME, end_of_pause, local
from conventions.cli.shared_options import JSON
from conventions.now.pause_targets import target_to_pause
from conventions.pauses.pause import Pause
from conventions.pauses.pause_actions import PauseActions
from conventions.pauses.pause_store import KINDS, Kind, Pauses, Target

COLUMNS = ("kind", "name", "since", "until", "by", "reason")
PAUSES: dict[Kind, str] = {
    "queue": "Let no worker begin what waits in a queue, whatever is restarted or deployed meanwhile.",
    "task": "Let no worker begin jobs of a task, in whichever queue they wait. Other jobs pass them.",
    "worker": "Drain one worker: it begins nothing more. Its node name stays paused when it is restarted.",
}


@click.group()
def pause() -> None:
    """Let workers begin nothing of a queue, of a task, or at one worker. What runs goes on, and sends are taken.

    Status 1 when a living worker has not said that it follows.
    """


@pause.command("list", cls=CeleryCommand)
@output_options
@click.pass_context
@one_line_errors
def list_pauses(context: click.Context, *, as_json: bool, limit: int) -> None:
    """List what is paused; `schedule list` has the paused schedules."""
    app = app_of(context)
    found = sorted(Pauses(app.store).read().pauses.items(), key=lambda one: one[0])
    emit([pause_row(target, one, zone_of(app)) for target, one in found], COLUMNS, as_json=as_json, limit=limit)


def pause_row(target: Target, one: Pause, zone: ZoneInfo) -> dict[str, Any]:
    """A pause as commands and pages show it."""
    return {
        "kind": target.kind,
        "name": target.name,
        "reason": one.reason,
        "by": one.actor,
        "since": local(one.since, zone),
        "until": local(one.until, zone),
    }


def _add(kind: Kind) -> None:
    @pause.command(kind, cls=CeleryCommand, help=PAUSES[kind])
    @NAME
    @click.option("--reason", required=True, help="Why; shown to everyone, and kept in the audit.")
    @click.option("--until", metavar="WHEN", help="When it resumes by itself: 2h, 7d, 2026-12-01, 2026-12-01T09:00.")
    @actor_option
    @JSON
    @click.pass_context
    @one_line_errors
    def paused(context: click.Context, **options: Any) -> None:
        _pause(context, kind, **options)


def _pause(
    context: click.Context, kind: Kind, *, name: str, reason: str, until: str | None, actor: str, as_json: bool
) -> None:
    if not reason.strip():
        raise click.BadParameter("say why it is paused", param_hint="--reason")
    app = app_of(context)
    target, zone = named(target_to_pause, app, kind, name), zone_of(app)
    now = Pauses(app.store).read()
    end = None if until is None else end_of_pause(until, now.at, zone)
    if (before := now.pauses.get(target)) is not None:
        say(f"this takes the place of a pause by {before.actor}: {before.reason}", err=True)
    try:
        made = PauseActions(app.store).pause(target, actor, reason, end)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not as_json:
        shown = "" if end is None else f" until {written(end)}"
        say(f"{target} is paused{shown}: {made.pause.reason}")
        say(f"to let it run again: celery -A {app.main} resume {kind} {target.name}")
    late = hear(app, target, made, pause_row(target, made.pause, zone), as_json=as_json)
    context.exit(1 if late else 0)


for one in KINDS:
    _add(one)
