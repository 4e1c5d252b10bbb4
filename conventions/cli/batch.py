"""`celery -A <app> batch`: list, show, watch and cancel batches, and send their dead chunks again."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click
from celery.bin.base import CeleryCommand
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from conventions.batches import batch_actions
from conventions.batches.batch_state import LIVE_STATES, LOOKED_THROUGH, STATES
from conventions.batches.batch_summary import BatchSummary
from conventions.broker.batch_membership import chunk_id, finish_id
from conventions.cli.actor_option import actor_option
from conventions.cli.base import (
    app_of,
    emit,
    json_of,
    one_line_errors,
    output_options,
    print_json,
    say,
    written,
)
from conventions.cli.shared_options import JSON, REASON
from conventions.console.display import rate_text
from conventions.core.durations import duration

COLUMNS = ("id", "task", "state", "total", "done", "failed", "chunks", "percent")
CHUNKS_SHOWN = 20
LOOK_EVERY = 0.3  # seconds between two readings of `watch`


def row_of(summary: BatchSummary) -> dict[str, Any]:
    """The fields of a batch in every listing."""
    return {name: getattr(summary, name) for name in COLUMNS}


def figures_of(summary: BatchSummary) -> dict[str, Any]:
    """The fields of a listing, with the sender, the time of sending, the speed and the remaining time."""
    progress = summary.progress
    return row_of(summary) | {
        "actor": summary.actor,
        "created_at": _moment(summary.created_at),
        "updated_at": _moment(progress.updated_at),
        "rate": progress.rate,
        "eta": progress.eta if summary.state in LIVE_STATES else None,  # a batch that has ended has no remaining time
        "stalled": progress.stalled,
    }


@click.group()
def batch() -> None:
    """List, watch and stop batches."""


@batch.command("list", cls=CeleryCommand)
@click.option("--state", type=click.Choice(STATES), help=f"Of the newest {LOOKED_THROUGH:,} batches.")
@output_options
@click.pass_context
@one_line_errors
def list_(context: click.Context, state: str | None, as_json: bool, limit: int) -> None:
    """List batches, the newest first."""
    found = app_of(context).batches.listing(limit + 1, state)
    rows = [row_of(one) if as_json else row_of(one) | {"state": _state(one)} for one in found]
    emit(rows, COLUMNS, as_json=as_json, limit=limit)


@batch.command(cls=CeleryCommand)
@output_options
@click.pass_context
@one_line_errors
def candidates(context: click.Context, as_json: bool, limit: int) -> None:
    """List tasks with jobs that run too long and should be split; the most such jobs first."""
    rows = [
        {
            "task": one.task,
            "count": one.count,
            "longest_s": one.longest,
            "last_at": _moment(one.last_at),
            "last_id": one.last_id,
        }
        for one in app_of(context).granularity.listing()
    ]
    emit(rows, ("task", "count", "longest_s", "last_at", "last_id"), as_json=as_json, limit=limit)


@batch.command(cls=CeleryCommand)
@click.argument("id")
@JSON
@click.pass_context
@one_line_errors
def show(context: click.Context, id: str, as_json: bool) -> None:  # noqa: A002  # the word of the glossary
    """Show one batch, with the chunks that failed."""
    summary = _summary(context, id)
    if as_json:
        chunks = {"failed_chunks": summary.failed_chunks, "cancelled_chunks": summary.cancelled_chunks}
        print_json(figures_of(summary) | chunks)
        return
    for name, value in (figures_of(summary) | {"state": _state(summary)}).items():
        say(f"{name:16} {_for_people(name, value)}")
    for name, indexes in (("failed_chunks", summary.failed_chunks), ("cancelled_chunks", summary.cancelled_chunks)):
        say(f"{name:16} {_numbers(indexes)}".rstrip())
    app = app_of(context).main
    letter = f"celery -A {app} dead-letters show"
    if summary.state == "dead":  # the letter of the message that ended the batch
        say(f"why: {letter} {id if summary.chunks is None else finish_id(id)}")
    for index in summary.failed_chunks[:CHUNKS_SHOWN]:
        say(f"chunk {index}: {letter} {chunk_id(id, index)}")
    if (more := len(summary.failed_chunks) - CHUNKS_SHOWN) > 0:
        which = f"--task {summary.task}.chunk --arg batch_id={id}"
        say(f"and {more:,} more: celery -A {app} dead-letters list {which}")


@batch.command(cls=CeleryCommand)
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, one for each change.")
@click.pass_context
@one_line_errors
def watch(context: click.Context, id: str, as_json: bool) -> None:  # noqa: A002
    """Draw the progress of one batch until it has ended.

    Status 1 when items failed or the batch did not end as done.
    """
    try:
        summary = _summary(context, id)
        if as_json:
            for summary in _changes(context, id):
                say(json_of(figures_of(summary)))
        else:
            summary = _draw(context, summary)
            say(f"{summary.state}: {summary.done} done, {summary.failed} failed")
    except KeyboardInterrupt:  # Ctrl-C only ends the watching; the batch goes on
        context.exit(1)
    context.exit(1 if summary.failed or summary.state != "done" else 0)


def _draw(context: click.Context, summary: BatchSummary) -> BatchSummary:
    """Draw a bar until the batch has ended, if the output is a terminal."""
    console = Console(stderr=True)
    names = ("percent", "count", "speed", "rest", "failed")
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *(TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in names),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task(summary.task.rpartition(".")[2], total=None, **_words(summary))
        for summary in _changes(context, summary.id):  # noqa: B020, PLR1704  # the caller needs the last one
            bars.update(bar, total=summary.total, completed=summary.done + summary.failed, **_words(summary))
    return summary


def _words(summary: BatchSummary) -> dict[str, Any]:
    """The text beside the bar."""
    figures = figures_of(summary)
    known = summary.total is not None
    rest = "" if figures["eta"] is None else f"{duration(figures['eta'])} left"
    return {
        "percent": f"{summary.percent} %" if known else "",
        "count": f"{summary.done:,} of {summary.total:,}" if known else f"{summary.done:,} done",
        "speed": rate_text(figures["rate"]),
        "rest": "stalled" if figures["stalled"] else rest,
        "failed": f"{summary.failed:,} failed" if summary.failed else "",
    }


def _changes(context: click.Context, id: str) -> Iterator[BatchSummary]:  # noqa: A002
    """The present state of the batch, then each changed state until the batch has ended."""
    before = None
    while True:
        summary = _summary(context, id)
        figures = figures_of(summary)
        if figures != before:
            yield summary
        if summary.state not in LIVE_STATES:
            return
        before = figures
        time.sleep(LOOK_EVERY)


@batch.command(cls=CeleryCommand)
@click.argument("id")
@REASON
@actor_option
@JSON
@click.pass_context
@one_line_errors
def cancel(context: click.Context, *, id: str, reason: str | None, actor: str, as_json: bool) -> None:  # noqa: A002
    """Stop cutting and processing a batch; running chunks learn it at their next report of progress.

    Status 1 when it had already ended.
    """
    app = app_of(context)
    _summary(context, id)
    cancelled = batch_actions.cancel_batch(app, id, actor, reason)
    if as_json:
        print_json({"id": id, "cancelled": cancelled})
    else:
        say(f"{id} is cancelled" if cancelled else f"{id} has ended before: {app.batches.state(id)}")
    context.exit(0 if cancelled else 1)


@batch.command("retry-failed", cls=CeleryCommand)
@click.argument("id")
@REASON
@actor_option
@JSON
@click.pass_context
@one_line_errors
def retry_failed(context: click.Context, *, id: str, reason: str | None, actor: str, as_json: bool) -> None:  # noqa: A002
    """Send the dead messages of a batch again: its chunks, or the splitter or finish that ended it.

    Status 1 when there is none, or one was not sent: somebody else has sent or discarded its letter.
    """
    app = app_of(context)
    app.loader.import_default_modules()
    _summary(context, id)
    sent, chunks = batch_actions.retry_failed(app, id, actor, reason)
    if as_json:
        print_json({"id": id, "sent": sent, "letters": chunks})
    else:
        say(f"{sent} of {chunks} dead letters sent again" if chunks else f"{id} has no dead letter")
    context.exit(0 if chunks and sent == chunks else 1)


def _summary(context: click.Context, id: str) -> BatchSummary:  # noqa: A002
    summary = app_of(context).batches.summary(id, returns=False)
    if summary is None:
        say(f"there is no batch {id}", err=True)
        context.exit(1)
    return summary


def _state(summary: BatchSummary) -> str:
    """The state for people: "done" is qualified if some chunks are dead."""
    return f"{summary.state}, {summary.failed:,} failed" if summary.is_partial else summary.state


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _for_people(name: str, value: Any) -> str:
    match name, value:
        case _, None:
            return ""
        case "rate", float():
            return rate_text(value)
        case "eta", float():
            return duration(value)
        case _, datetime():
            return written(value)
        case _, bool():
            return "yes" if value else "no"
    return str(value)


def _numbers(indexes: list[int]) -> str:
    """The first numbers, and how many more there are; empty for none."""
    shown = ", ".join(map(str, indexes[:CHUNKS_SHOWN]))
    more = len(indexes) - CHUNKS_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown
