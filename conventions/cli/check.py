"""`celery -A <app> check`: whether this application can run here, and whether what waits fits its code."""

import click
from celery.bin.base import CeleryCommand

from conventions.cli.base import app_of, emit, one_line_errors, say
from conventions.cli.checks.contracts import COLUMNS, Contracts
from conventions.cli.checks.everyday import EVERYDAY
from conventions.cli.checks.report import lines
from conventions.cli.checks.surroundings import SURROUNDINGS
from conventions.cli.shared_options import JSON


@click.command(cls=CeleryCommand)
@click.option("--contracts", is_flag=True,
              help="Look at each payload that waits, is delayed, runs, is dead, or is in the outbox: does it fit this code?")  # fmt: skip
@JSON
@click.pass_context
def check(context: click.Context, contracts: bool, as_json: bool) -> None:
    """Check settings, broker, Redis and its data, database, journal, tasks, schedule, and which queues are consumed.

    Status 1 when one of them does not work, or messages wait in a queue without a worker. With --contracts, before a deploy of this code: status 1
    when something waits that it could not run.
    """
    if contracts:
        _check_contracts(context, as_json=as_json)
        return
    app = app_of(context)
    rows = [one._asdict() for one in lines({**EVERYDAY, **SURROUNDINGS}, app)]
    emit(rows, ("check", "ok", "fault", "fix"), as_json=as_json)
    context.exit(0 if all(row["ok"] for row in rows) else 1)


@one_line_errors
def _check_contracts(context: click.Context, *, as_json: bool) -> None:
    found = Contracts(app_of(context))
    rows = [one._asdict() for one in found.misfits()]
    if rows or as_json:
        emit(rows, COLUMNS, as_json=as_json, short=("example",))
    for note in found.notes:
        say(note, err=True)
    if not as_json:
        say(
            f"{found.looked:,} payloads were looked at, {sum(row['payloads'] for row in rows):,} do not fit this code",
            err=True,
        )
    context.exit(1 if rows else 0)
