"""`celery -A <app> job ID`: what became of a job."""

from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from typing import Any

import click
from celery.bin.base import CeleryCommand

from conventions.app import ConventionsApp
from conventions.broker.consumers import ask_workers
from conventions.cli.base import app_of, one_line_errors, print_json, say, written
from conventions.core.printable_text import printable
from conventions.jobs.facts import Facts
from conventions.jobs.job import Job
from conventions.jobs.result_backend import described

FIELDS = tuple(one.name for one in fields(Facts))


@click.command(cls=CeleryCommand)
@click.argument("id")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Wait so long for its end; status 0 only if it went well.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")
@click.pass_context
@one_line_errors
def job(context: click.Context, id: str, wait: float | None, as_json: bool) -> None:  # noqa: A002  # the word of the glossary
    """Show what became of the job ID, and why it waits. Status 1 if nothing is known of it."""
    app = app_of(context)
    try:
        found = Job.of(id, app)
        if wait is not None:
            with suppress(TimeoutError):
                found = found.wait(wait)
            if not found.ended:
                found = Job.of(id, app)
    except ValueError as error:
        raise click.UsageError(printable(str(error))) from None
    shown = {name: getattr(found, name) for name in FIELDS}
    shown["progress"] = None if found.progress is None else described(found.progress)
    if found.state == "queued":
        shown["waits_because"] = _with_consumers(app, found)
    if as_json:
        print_json(shown)
    else:
        for name, value in shown.items():
            if (text := _text(name, value, found)) is not None:
                say(f"{name.replace('_', ' '):<14} {text}")
        if more := _more(found):
            say(f"more{' ' * 10} celery -A {app.main} {more}")
    context.exit(int(found.state == "unknown" if wait is None else not found.went_well))


def _with_consumers(app: ConventionsApp, found: Job) -> str:
    """Why it waits, with whether anybody reads its queue, which only the workers themselves can tell."""
    consumers = ask_workers(app.store, app.control)
    if found.queue in consumers.queues or consumers.silent:
        return found.waits_because
    return f"{found.waits_because}; no worker consumes the queue {found.queue}"


def _text(name: str, value: Any, found: Job) -> str | None:
    """A field for people; `None`: there is nothing to show."""
    if name in ("has_result", "is_batch", "traceback") or (name == "redrives" and not value):
        return None
    if name == "result":
        return repr(value) if found.has_result else None
    if name == "progress" and value is not None:
        return _progress(value)
    if isinstance(value, datetime):
        return written(value)
    text = f"{value:.3f} s" if isinstance(value, float) else str(value)
    return None if value in (None, "") else text


def _progress(value: dict[str, Any]) -> str:
    total = "" if value["total"] is None else f" of {value['total']:,}, {value['percent']} %"
    failed = f", {value['failed']:,} failed" if value["failed"] else ""
    note = f", {value['note']}" if value["note"] else ""
    return f"{value['done']:,}{total}{failed}{note}" + (", stalled" if value["stalled"] else "")


def _more(found: Job) -> str | None:
    """The command that shows more of it."""
    if found.is_batch:
        return f"batch show {found.id}"
    return f"dead-letters show {found.id}" if found.state in ("dead", "discarded") else None
