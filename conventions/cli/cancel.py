"""`celery -A <app> cancel ID`: keep a message from running, or end a job that runs."""

import click
from celery.bin.base import CeleryCommand
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from conventions.app import ConventionsApp
from conventions.cli.actor_option import actor_option
from conventions.cli.base import app_of, one_line_errors, say
from conventions.cli.shared_options import REASON
from conventions.now.cancel_or_end import cancel_or_end
from conventions.now.end_running import BY_ITSELF, ForcedEnd
from conventions.now.whole_id import LENGTH, SHORT, whole_ids

ANSWERS = {
    "queued": "queued; it will not run",
    "running": "running; it is told at its next report of progress",
    "too late": "too late; it has ended, or was not sent yet",
}


@click.command(cls=CeleryCommand)
@click.argument("id")
@click.option("--force", is_flag=True, help="End it by force where it runs: its process is killed. Needs --reason.")
@REASON
@actor_option
@click.pass_context
@one_line_errors
def cancel(context: click.Context, *, id: str, force: bool, reason: str | None, actor: str) -> None:  # noqa: A002  # the word of the glossary
    """Keep the message ID from running; status 1 when it has already ended.

    A running job learns it at its next report of progress. With --force its process is killed now, in a prefork pool; what it has done outside a
    transaction stays done. Status 1 when it goes on.
    """
    app = app_of(context)
    if force and not (reason or "").strip():
        raise click.UsageError("--force needs --reason")
    app.loader.import_default_modules()  # whether it is a function
    outcome = cancel_or_end(app, id, actor, reason, force=force)
    if outcome.fault is not None:
        raise outcome.fault
    answer, forced = outcome.answer, outcome.forced
    if answer is None:
        raise click.UsageError(
            "it is a batch: name one of its chunks, which `now` lists while they run; or `batch cancel`"
        )
    if forced is None:
        say(f"{id}: {ANSWERS[answer]}")
        if answer == "too late" or not app.port.keeps_claims:
            _say_if_short(app, id)
        context.exit(1 if answer == "too late" else 0)
    say(f"{id}: {_said(forced, answer)}")
    context.exit(1 if forced.how in ("in a thread", "goes on") else 0)


def _say_if_short(app: ConventionsApp, id_: str) -> None:
    """Say that an id is only the beginning of one, as lists and pages show it. Nothing is cancelled by a guess."""
    if len(id_) >= LENGTH:
        return
    try:
        found = whole_ids(app, id_)
    except (RedisError, SQLAlchemyError):  # what was done is said
        found = []
    names = f"; it is the beginning of {' and of '.join(found)}: give a whole one" if found else ""
    say(f"{SHORT}{names}", err=True)


def _said(forced: ForcedEnd, answer: str) -> str:
    match forced.how:
        case "ended":
            return f"ended by force at {forced.worker}; it is {forced.state}"
        case "in a thread":
            return (
                f"{forced.worker} runs it in a thread ({forced.pool}), which nobody can end: it is told at its next report of progress; to end it now, "
                "stop that worker, whose other jobs run again elsewhere"
            )
        case "goes on":
            when = (
                "it stops, and hears no remote control: the end of its shutdown_grace, or a second SIGTERM, ends the job"
                if forced.stops
                else "look at `job` in a moment"
            )
            return f"{forced.worker} has not ended it yet; {when}"
        case _ if forced.state in BY_ITSELF:
            return f"it has ended by itself; it is {forced.state}"
        case _ if forced.state == "unknown":
            return "no worker says that it runs it; if it waits, it will not run"
    return ANSWERS["queued"] if answer == "queued" else f"no worker runs it; it is {forced.state}"
