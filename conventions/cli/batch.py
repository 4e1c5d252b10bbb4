"""`celery -A <app> batch`: watch and stop batches."""

import time
from typing import Any

import click
from celery.bin.base import CeleryCommand
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from conventions.batches import LIVE_STATES, BatchSummary, chunk_id
from conventions.cli.base import app_of, emit, one_line_errors, output_options, print_json
from conventions.redrive import redrive

COLUMNS = ("id", "task", "state", "total", "done", "failed", "chunks", "percent")
LOOK_EVERY = 0.3  # seconds between two looks of `watch`


def row_of(summary: BatchSummary) -> dict[str, Any]:
    """The fields of a batch as every listing names them."""
    return {name: getattr(summary, name) for name in COLUMNS}


@click.group()
def batch() -> None:
    """Watch and stop batches."""


@batch.command("list", cls=CeleryCommand)
@output_options
@click.pass_context
@one_line_errors
def list_(context: click.Context, as_json: bool, limit: int) -> None:
    """List batches, the newest first."""
    emit(map(row_of, app_of(context).batches.listing(limit)), COLUMNS, as_json=as_json)


@batch.command(cls=CeleryCommand)
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")
@click.pass_context
@one_line_errors
def show(context: click.Context, id: str, as_json: bool) -> None:  # noqa: A002  # the word of the glossary
    """Show one batch."""
    summary = _summary(context, id)
    if as_json:
        print_json(row_of(summary) | {"failed_chunks": summary.failed_chunks})
        return
    for name, value in row_of(summary).items():
        click.echo(f"{name:8} {'' if value is None else value}")
    for index in summary.failed_chunks:
        click.echo(f"dead     chunk {index}: celery -A … dead-letters show {chunk_id(id, index)}")


@batch.command(cls=CeleryCommand)
@click.argument("id")
@click.pass_context
@one_line_errors
def watch(context: click.Context, id: str) -> None:  # noqa: A002
    """Draw the progress of one batch until it has ended; status 1 when items failed."""
    summary = _summary(context, id)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console()) as progress:
        bar = progress.add_task(summary.task, total=summary.total)
        while summary.state in LIVE_STATES:
            progress.update(bar, total=summary.total, completed=summary.done + summary.failed)
            time.sleep(LOOK_EVERY)
            summary = _summary(context, id)
        progress.update(bar, total=summary.total, completed=summary.done + summary.failed)
    click.echo(f"{summary.state}: {summary.done} done, {summary.failed} failed")
    context.exit(1 if summary.failed or summary.state != "done" else 0)


@batch.command(cls=CeleryCommand)
@click.argument("id")
@click.pass_context
@one_line_errors
def cancel(context: click.Context, id: str) -> None:  # noqa: A002
    """Cut and process no more of a batch; chunks that run now go on."""
    summary = _summary(context, id)
    if summary.state not in LIVE_STATES:
        click.echo(f"{id} has ended already: {summary.state}")
        context.exit(1)
    app_of(context).batches.set_state(id, "cancelled")
    click.echo(f"{id} is cancelled")


@batch.command("retry-failed", cls=CeleryCommand)
@click.argument("id")
@click.pass_context
@one_line_errors
def retry_failed(context: click.Context, id: str) -> None:  # noqa: A002
    """Redrive the dead chunks of a batch."""
    app = app_of(context)
    app.loader.import_default_modules()
    ids = [chunk_id(id, index) for index in _summary(context, id).failed_chunks]
    sent = [one for one in ids if redrive(app, one)]
    click.echo(f"{len(sent)} of {len(ids)} dead chunks sent again")
    context.exit(0 if len(sent) == len(ids) else 1)


def _summary(context: click.Context, id: str) -> BatchSummary:  # noqa: A002
    summary = app_of(context).batches.summary(id)
    if summary is None:
        click.echo(f"there is no batch {id}", err=True)
        context.exit(1)
    return summary
