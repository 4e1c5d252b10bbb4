"""`celery -A <app> lost`: jobs whose messages disappeared from Redis."""

import click
from celery.bin.base import CeleryCommand

from conventions.cli.base import app_of, emit, existing, one_line_errors, output_options
from conventions.records import executions

SHOWN = ("message_id", "task", "queue", "actor", "generation", "attempt", "ended_at")


@click.command(cls=CeleryCommand)
@output_options
@click.pass_context
@one_line_errors
def lost(context: click.Context, as_json: bool, limit: int) -> None:
    """List the jobs that are recorded as lost, the latest first; `ended_at` is when the loss was found.

    Send those that are still wanted again, under their ids. A redriven letter that was lost is dead again.
    """
    with existing(app_of(context).database).session(read_only=True) as session:
        found = executions.latest(session, limit + 1, kind="lost")
        rows = [{name: getattr(row, name) for name in (*SHOWN, "key", "enqueued_at")} for row in found]
    emit(rows, SHOWN, as_json=as_json, limit=limit, short=("message_id",))
