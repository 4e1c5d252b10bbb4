"""`celery -A <app> cancel ID`: keep a message from running, or end a job that runs."""

import click
from celery.bin.base import CeleryCommand
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from conventions.app import ConventionsApp
from conventions.cli.actor_option import actor_option
from conventions.cli.base import app_of, one_line_errors, say
from conventions.cli.shared_options import REASON
from conventions.jobs.job import Job
from conventions.metrics.worker_reports import WorkerReports
from conventions.now.cancel_or_end import cancel_or_end
from conventions.now.end_running import BY_ITSELF, ForcedEnd
from conventions.now.whole_id import LENGTH, SHORT, whole_ids

ANSWERS = {
    "queued": "queued; it will not run",
    "running": "running; it is told at its next report of progress",
    "too late": "too late; it has ended, or was not sent yet",
}
UNSURE = "whether its process is ended is not known"


@click.command(cls=CeleryCommand)
@click.argument("id")
@click.option("--force", is_flag=True, help="End it by force where it runs: its process is killed. Needs --reason.")
@REASON
@actor_option
@click.pass_context
@one_line_errors
def cancel(context: click.Context, *, id: str, force: bool, reason: str | None, actor: str) -> None:  # noqa: A002  # the word of the glossary
    """Keep the message ID from running; status 1 when it has already ended, or is only the beginning of an id.

    A running job learns it at its next report of progress. With --force its process is killed now, in a prefork pool; what it has done outside a
    transaction stays done. Status 1 when it goes on.
    """
    app = app_of(context)
    if force and not (reason or "").strip():
        raise click.UsageError("--force needs --reason")
    app.loader.import_default_modules()  # whether it is a function
    if begun := _begun(app, id):
        say(f"{SHORT}; it is the beginning of {' and of '.join(begun)}: give a whole one. Nothing is done", err=True)
        context.exit(1)
    outcome = cancel_or_end(app, id, actor, reason, force=force)
    if outcome.fault is not None:
        say(f"{id}: {'too late' if outcome.answer == 'too late' else 'it is cancelled'}; {UNSURE}")
        raise outcome.fault
    answer, forced = outcome.answer, outcome.forced
    if answer is None:
        raise click.UsageError(
            "it is a batch: name one of its chunks, which `now` lists while they run; or `batch cancel`"
        )
    if forced is None:
        say(f"{id}: {ANSWERS[answer]}")
        if (answer == "too late" or not app.port.keeps_claims) and len(id) < LENGTH:
            say(SHORT, err=True)
        context.exit(1 if answer == "too late" else 0)
    say(f"{id}: {_said(app, forced, answer)}")
    context.exit(1 if forced.how in ("in a thread", "goes on") else 0)


def _begun(app: ConventionsApp, text: str) -> list[str]:
    """The ids of which this is only the beginning, as lists and pages show it. Nothing is cancelled by a guess, and a whole id is one."""
    if len(text) >= LENGTH or not app.port.can.looks:  # else a whole one that waits would look as if nobody knew it
        return []
    try:
        is_known = Job.of(text, app).state != "unknown" or bool(app.batches.states([text]))
        return [] if is_known else whole_ids(app, text)
    except (ValueError, RedisError, SQLAlchemyError):  # a message can be cancelled while SQL is away
        return []


def _said(app: ConventionsApp, forced: ForcedEnd, answer: str) -> str:
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
    return (
        f"it has ended by itself; it is {forced.state}"
        if forced.state in BY_ITSELF
        else _not_ended(app, forced, answer)
    )


def _not_ended(app: ConventionsApp, forced: ForcedEnd, answer: str) -> str:
    """What the cancel did where there is no process to end."""
    nobody = _nobody(app)
    if forced.state == "unknown":
        return f"it is cancelled: if it waits, it will not run; {nobody}"
    if answer == "queued":
        return f"{ANSWERS['queued']}; {nobody}"
    cancelled = "it is cancelled: it will not run again; " if answer == "running" else ""
    return f"{cancelled}{nobody}; it is {forced.state}"


def _nobody(app: ConventionsApp) -> str:
    """What is not done by force, and why."""
    try:
        lives = any(not one.silent for one in WorkerReports(app.store).listing())
    except RedisError:  # what was done is said
        lives = True
    return f"{'no worker says that it runs it' if lives else 'no worker lives'}, so no process is ended"
