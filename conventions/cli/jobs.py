"""`celery -A <app> jobs list`: jobs that run, wait, or have ended, by state, task, queue, worker, release, sender, argument and time."""

from dataclasses import asdict
from typing import Any
from zoneinfo import ZoneInfo

import click
from celery.bin.base import CeleryCommand

from conventions.cli.base import app_of, emit, one_line_errors, output_options, print_json, say
from conventions.cli.option_types import Pair
from conventions.cli.unknown_names import say_unknown
from conventions.console.display import runtime_text
from conventions.core.time_units import moment_or_age
from conventions.now.job_filter import STATES, JobFilter
from conventions.now.job_listing import list_jobs
from conventions.sealing.argument_names import ArgumentNames
from conventions.sealing.blind_index import sought
from conventions.storage.database import utc_now

COLUMNS = ("id", "state", "task", "queue", "actor", "worker", "at", "due_at", "runtime", "attempt", "error")


@click.group()
def jobs() -> None:
    """Jobs that run, wait, or have ended."""


@jobs.command("list", cls=CeleryCommand)
@click.option("--state", type=click.Choice(STATES), help="Default: any.")
@click.option("--task", default="", help="Task name, or the last part of it.")
@click.option("--queue", default="", help="Queue name.")
@click.option("--worker", default="", help="Host name of the worker that runs it, or ran it.")
@click.option("--release", default="", help="Release of the code that runs it, or ran it.")
@click.option("--actor", default="", help="Who sent it.")
@click.option(
    "--arg",
    "arguments",
    type=Pair(),
    multiple=True,
    metavar="NAME=VALUE",
    help="Of jobs that wait, and of dead letters.",
)
@click.option("--since", metavar="WHEN", help="Sent, begun or ended not before: 2026-11-25T09:00, or an age like 2h.")
@click.option("--until", metavar="WHEN", help="Before: the same.")
@output_options
@click.pass_context
@one_line_errors
def list_(
    context: click.Context,
    *,
    state: str | None,
    since: str | None,
    until: str | None,
    as_json: bool,
    limit: int,
    **of: Any,
) -> None:
    """List jobs: those that run, then those that wait, in their order, then attempts that have ended, the latest first.

    Of each of the three `--limit` at the most. Status 1 when a part could not be asked.
    """
    app = app_of(context)
    app.loader.import_default_modules()
    zone, now = ZoneInfo(app.settings.timezone), utc_now()
    try:
        first, last = (moment_or_age(text, now, zone) if text else None for text in (since, until))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    by = sought(app.name_keys, ArgumentNames.of(app.tasks.values()), of["arguments"])
    found = list_jobs(app, JobFilter(state=state or "", since=first, until=last, **of | by._asdict()), limit)
    if as_json:
        print_json(asdict(found))
    else:
        rows = [
            asdict(one) | {"runtime": None if one.runtime is None else runtime_text(one.runtime)} for one in found.lines
        ]
        emit(rows, COLUMNS, as_json=False, short=("id",))
    if not found.lines and not found.absent:
        say_unknown(app, task=of["task"], queue=of["queue"], worker=of["worker"], arguments=of["arguments"])
    for part in found.more:
        say(f"the first {limit:,} {part}; --limit shows more", err=True)
    if found.is_partial:
        say(f"of {found.waiting:,} messages that wait, {found.looked:,} were looked at: name a --queue", err=True)
    for part, why in found.absent.items():
        say(f"{part} are not shown: {why}", err=True)
    context.exit(1 if found.absent else 0)
