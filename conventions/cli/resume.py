"""`celery -A <app> resume`: end a pause of a queue, a task or a worker."""

from typing import Any

import click
from celery.bin.base import CeleryCommand

from conventions.cli.actor_option import actor_option
from conventions.cli.base import app_of, one_line_errors, print_json, say
from conventions.cli.pause_options import hear, named
from conventions.cli.schedule_options import NAME
from conventions.cli.shared_options import JSON, REASON
from conventions.now.pause_targets import target_to_resume
from conventions.pauses.pause_actions import PauseActions, PausedAgain
from conventions.pauses.pause_store import KINDS, Kind


@click.group()
def resume() -> None:
    """End a pause of a queue, a task or a worker.

    Status 1 when there was none, or a living worker has not said that it follows; 2 when there is nothing of this name.
    """


def _add(kind: Kind) -> None:
    @resume.command(kind, cls=CeleryCommand, help=f"End the pause of a {kind}.")
    @NAME
    @REASON
    @actor_option
    @JSON
    @click.pass_context
    @one_line_errors
    def resumed(context: click.Context, **options: Any) -> None:
        _resume(context, kind, **options)


def _resume(context: click.Context, kind: Kind, *, name: str, reason: str | None, actor: str, as_json: bool) -> None:
    app = app_of(context)
    target = named(target_to_resume, app, kind, name)
    row: dict[str, Any] = {"kind": kind, "name": target.name, "resumed": True}
    fault, ended = f"{target} is not paused", None
    try:
        ended = PauseActions(app.store).resume(target, actor, reason)
    except PausedAgain as again:
        fault = f"{target} was paused again meanwhile, by {again.pause.actor}: {again.pause.reason}"
    if ended is None:
        say(fault, err=True)
        if as_json:
            print_json(row | {"resumed": False})
        context.exit(1)
    if not as_json:
        say(f"{target} runs again")
    late = hear(app, target, ended, row, as_json=as_json)
    context.exit(1 if late else 0)


for one in KINDS:
    _add(one)
