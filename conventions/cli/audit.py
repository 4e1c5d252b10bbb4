"""`celery -A <app> audit`: who ran what, when, with what result, and who did what, why."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, get_args
from zoneinfo import ZoneInfo

import click
from celery.bin.base import CeleryCommand
from click.core import ParameterSource
from redis.exceptions import RedisError

from conventions.cli import audit_proof
from conventions.cli.base import app_of, emit, existing, one_line_errors, output_options, say
from conventions.cli.dead_letters import say_what_waits
from conventions.cli.unknown_names import say_unknown
from conventions.console.display import runtime_text
from conventions.core.csv_text import csv_line
from conventions.core.near_names import did_you_mean
from conventions.core.time_units import moment_or_age
from conventions.records.audit_filter import AuditFilter, Of
from conventions.records.audit_listing import FIELDS, AuditLine, action_names, left_out_text, listing, pages
from conventions.records.journal import KINDS
from conventions.storage.database import utc_now

SHOWN = ("at", "actor", "what", "id", "attempt", "outcome", "worker", "runtime", "why")
MOST_CHARACTERS = 200  # of a changed value in the table; `--json` has it whole


@click.group()
def audit() -> None:
    """Who ran what, when, with what result; who did what, and why."""


@audit.command("list", cls=CeleryCommand)
@click.option("--of", type=click.Choice(get_args(Of)), default="all", show_default=True,
              help="Attempts at jobs, what people did, or both.")  # fmt: skip
@click.option("--actor", help="Who acted, or in whose name the job ran.")
@click.option("--task", help="Task name, or the last part of it. Only executions.")
@click.option("--queue", help="Queue name. Only executions.")
@click.option("--id", "id", help="Id of the message, or what an action was done to: a schedule, a batch, a redrive.")
@click.option("--action", help="What a person did, such as 'schedule pause', or its first words. Only actions.")
@click.option("--outcome", type=click.Choice(KINDS), help="How the attempt ended. Only executions.")
@click.option("--worker", help="Host name of the worker. Only executions.")
@click.option("--release", help="Release of the code that ran it. Only executions.")
@click.option(
    "--since", metavar="WHEN", help="Not before: 2026-11-25T09:00 in CONVENTIONS_TIMEZONE, or an age like 2h."
)
@click.option("--until", metavar="WHEN", help="Before: the same.")
@output_options
@click.option("--csv", "as_csv", is_flag=True, help="Write all that match as CSV; with --limit so many.")
@click.pass_context
@one_line_errors
def list_(
    context: click.Context, *, since: str | None, until: str | None, as_json: bool, as_csv: bool, limit: int, **of: Any
) -> None:
    """List attempts at jobs and actions of people, newest first."""
    if as_json and as_csv:
        raise click.UsageError("say --json or --csv, not both")
    app = app_of(context)
    zone, now = ZoneInfo(app.settings.timezone), utc_now()
    which = AuditFilter(since=_moment("since", since, now, zone), until=_moment("until", until, now, zone), **of)
    if fault := which.fault("--"):
        raise click.UsageError(fault)
    database = existing(app.database)
    say_what_waits(context)
    left_out: set[str] = set()
    if as_csv:
        is_limited = context.get_parameter_source("limit") is not ParameterSource.DEFAULT
        click.echo(csv_line(FIELDS), nl=False)
        for page in pages(database, which, limit if is_limited else None, left_out):
            click.echo("".join(csv_line(line.values(zone).values()) for line in page), nl=False)
        _say_left_out(left_out)
        return
    with database.session(read_only=True) as session:
        found = listing(session, which, limit + 1, left_out=left_out)
        actions = action_names(session) if which.action and not found else []
    rows = [line.values(zone) for line in found] if as_json else _rows(found)
    emit(rows, SHOWN, as_json=as_json, limit=limit, short=("id",))
    _say_left_out(left_out)
    if not found:
        _say_unknown(context, which, actions)


def _say_left_out(rows: Collection[str]) -> None:
    if rows:
        say(f"{left_out_text(rows)}: see `audit verify`", err=True)


def _say_unknown(context: click.Context, which: AuditFilter, actions: Sequence[str]) -> None:
    """Say which names of a filter that has found nothing are not known."""
    action = which.action
    if action and not any(one == action or one.startswith(f"{action} ") for one in actions):
        there = ", ".join(actions) or "none"
        say(f"the audit has no action {action}{did_you_mean(action, actions)}; it has: {there}", err=True)
    if which.task or which.queue or which.worker:
        app = app_of(context)
        app.loader.import_default_modules()
        with suppress(RedisError):  # the audit is in SQL, and is shown without Redis, too
            say_unknown(app, task=which.task, queue=which.queue, worker=which.worker)


def _moment(name: str, text: str | None, now: datetime, zone: ZoneInfo) -> datetime | None:
    try:
        return None if text is None else moment_or_age(text, now, zone)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=f"--{name}") from None


def _rows(found: Sequence[AuditLine]) -> list[dict[str, object]]:
    """The rows of the table: an execution and an action share its columns."""
    return [
        {
            "at": line.at,
            "actor": line.actor,
            "what": line.task or "no task" if line.of == "execution" else line.action,
            "id": line.id if line.of == "execution" else line.target,
            "attempt": line.attempt,
            "outcome": line.outcome,
            "worker": line.worker,
            "runtime": None if line.runtime is None else runtime_text(line.runtime),
            "why": _why(line),
        }
        for line in found
    ]


def _why(line: AuditLine) -> str:
    """The error of an execution; the reason of an action, and what it changed."""
    if line.of == "execution":
        return ": ".join(text for text in (line.error, line.error_message) if text)
    changed = [_short(value) for value in (line.before, line.after) if value is not None]
    return "; ".join(text for text in (line.reason, " -> ".join(changed)) if text)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


audit_proof.add_to(audit)
