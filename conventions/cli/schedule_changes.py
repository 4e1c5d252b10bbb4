"""`celery -A <app> schedule`: the commands that change schedules: run now, pause, resume."""

from typing import Any

import click
from celery.bin.base import CeleryCommand

from conventions.cli.actor_option import actor_option
from conventions.cli.base import one_line_errors, print_json, say, written
from conventions.cli.schedule_options import NAME, Listed, end_of_pause, naming
from conventions.cli.shared_options import JSON, REASON
from conventions.pauses.pause_actions import PausedAgain
from conventions.schedules.schedule_actions import JustRun, StillRuns


def add_to(group: click.Group) -> None:
    """Add these commands."""
    for command in (run, pause, resume):
        group.add_command(command)


@click.command(cls=CeleryCommand)
@NAME
@REASON
@click.option("--beside", is_flag=True, help="Also while an earlier run of it has not ended.")
@actor_option
@JSON
@click.pass_context
@one_line_errors
def run(context: click.Context, *, name: str, reason: str | None, beside: bool, actor: str, as_json: bool) -> None:
    """Run a schedule now, with the arguments of its latest slot; also while it is paused.

    Status 1 when an earlier run has not ended, and the schedule says that no two may overlap; or when somebody has run it in the same moment.
    """
    listed = Listed(context)
    entry = listed.find(name)
    answer: dict[str, Any] = {
        "name": name,
        "task": entry.task.name,
        "id": None,
        "sent_at": None,
        "still_runs": None,
        "just_run": None,
    }
    try:
        with naming(name):
            sent = listed.actions.run_now(entry, actor, reason, beside=beside)
        answer |= {"id": sent.id, "sent_at": sent.sent_at.astimezone(listed.zone)}
    except StillRuns as error:
        answer["still_runs"] = error.id
        say(f"nothing is sent: {error.id} of {name} has not ended; --beside runs it all the same", err=True)
    except JustRun as error:
        answer["just_run"] = error.id
        say(
            f"nothing is sent: {error.actor} has run {name} in the same moment, as {error.id}; to run it once more, repeat the command",
            err=True,
        )
    if as_json:
        print_json(answer)
    elif answer["id"]:
        say(f"{name} is sent as {answer['id']}")
    context.exit(0 if answer["id"] else 1)


@click.command(cls=CeleryCommand)
@NAME
@click.option("--reason", required=True, help="Why; shown to everyone, and kept in the audit.")
@click.option("--until", metavar="WHEN", help="When it resumes by itself: 2h, 7d, 2026-12-01, 2026-12-01T09:00.")
@actor_option
@JSON
@click.pass_context
@one_line_errors
def pause(context: click.Context, *, name: str, reason: str, until: str | None, actor: str, as_json: bool) -> None:
    """Send nothing for a schedule until it is resumed, whatever is restarted or deployed meanwhile.

    The end of the pause is a length of time, or a date or a date and time, in the zone of the app unless it names
    an offset. Slots that pass meanwhile are not caught up.
    """
    if not reason.strip():
        raise click.BadParameter("say why it is paused", param_hint="--reason")
    listed = Listed(context)
    summary = listed.summary(name)
    end = None if until is None else end_of_pause(until, summary.now, listed.zone)
    if (before := summary.state.pause) is not None:
        say(f"this takes the place of a pause by {before.actor}: {before.reason}", err=True)
    made = listed.actions.pause(summary.listed, actor, reason, end)
    shown_end = summary.local(end)
    if as_json:
        print_json(
            {
                "name": name,
                "paused": True,
                "pause_reason": made.reason,
                "paused_by": made.actor,
                "paused_at": summary.local(made.since),
                "paused_until": shown_end,
            }
        )
        return
    command = f"celery -A {listed.app.main} schedule resume {name}"
    if shown_end is None:
        say(f"{name} is paused: {made.reason}\nto let it run again: {command}")
    else:
        say(f"{name} is paused until {written(shown_end)}: {made.reason}\nto let it run before that: {command}")


@click.command(cls=CeleryCommand)
@NAME
@REASON
@actor_option
@JSON
@click.pass_context
@one_line_errors
def resume(context: click.Context, *, name: str, reason: str | None, actor: str, as_json: bool) -> None:
    """Lift a pause; slots that passed meanwhile are not caught up. Status 1 when it was not paused."""
    listed = Listed(context)
    entry = listed.find(name)
    lifted, fault = False, f"{name} is not paused"
    try:
        with naming(name):
            lifted = listed.actions.resume(entry, actor, reason)
    except PausedAgain as again:
        fault = f"{name} was paused again meanwhile, by {again.pause.actor}: {again.pause.reason}"
    with naming(name):
        following = listed.summary(name).next_run_at
    if not lifted:
        say(fault, err=True)
    if as_json:
        print_json({"name": name, "resumed": lifted, "next_run_at": following})
    elif lifted:
        say(f"{name} runs again, {f'next at {written(following)}' if following else 'but no slot comes'}")
    context.exit(0 if lifted else 1)
