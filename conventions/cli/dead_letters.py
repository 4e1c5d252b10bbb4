"""`celery -A <app> dead-letters`: find, show, redrive and discard dead letters."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click
from celery.bin.base import CeleryCommand
from redis.exceptions import RedisError
from sqlalchemy.orm import Session

from conventions import dead_letters as letters
from conventions.cli.base import app_of, emit, one_line_errors, output_options, print_json
from conventions.errors import ConfigurationError
from conventions.journal import Journal
from conventions.redrive import redrive as send_again
from conventions.tables import DeadLetterRow

COLUMNS = (
    "id", "task", "queue", "error", "error_message", "fingerprint", "attempts", "actor", "state",
    "first_failed_at", "last_failed_at",
)  # fmt: skip
HISTORY_SHOWN = ("attempt", "kind", "error", "error_message", "ended_at", "worker", "runtime")
SHOWN = ("id", "task", "error", "error_message", "attempts", "actor", "last_failed_at")


@click.group("dead-letters")
def dead_letters() -> None:
    """Find, show, redrive and discard dead letters."""


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filters, the same words everywhere; the function gets them as `which`."""

    @functools.wraps(function)  # keeps the options that are declared below this one, too
    def with_filter(*args: Any, task: Any, queue: Any, error: Any, group: Any, state: Any, **options: Any) -> Any:
        return function(*args, which=letters.Filter(state, task, queue, error, group), **options)

    for option, text in (("task", "Task name."), ("queue", "Queue name."), ("error", "Class name of the exception."),
                         ("group", "Fingerprint of a group.")):  # fmt: skip
        with_filter = click.option(f"--{option}", help=text)(with_filter)
    return click.option("--state", type=click.Choice(letters.STATES), default="dead", show_default=True)(with_filter)


@contextmanager
def _session(context: click.Context, *, read_only: bool = True) -> Iterator[Session]:
    with app_of(context).database.session(read_only=read_only) as session:
        yield session


def say_what_waits(context: click.Context) -> None:
    """One line on standard error when the journal holds what SQL does not yet."""
    try:
        waiting = Journal(app_of(context).store).length()
    except (RedisError, ConfigurationError):  # what SQL has can be looked at all the same
        click.echo("Redis cannot be reached: there may be events that are not recorded yet", err=True)
        return
    if waiting:
        click.echo(f"not recorded yet: {waiting} {'event' if waiting == 1 else 'events'}", err=True)


def row_of(letter: DeadLetterRow) -> dict[str, Any]:
    """The fields of a dead letter as every listing names them."""
    return {name: getattr(letter, name) for name in COLUMNS}


@dead_letters.command("list", cls=CeleryCommand)
@filter_options
@output_options
@click.pass_context
@one_line_errors
def list_(context: click.Context, which: letters.Filter, as_json: bool, limit: int) -> None:
    """List dead letters, the newest failure first."""
    say_what_waits(context)
    with _session(context) as session:
        emit([row_of(letter) for letter in letters.listing(session, which, limit)],
             COLUMNS if as_json else SHOWN, as_json=as_json)  # fmt: skip


@dead_letters.command(cls=CeleryCommand)
@filter_options
@output_options
@click.pass_context
@one_line_errors
def groups(context: click.Context, which: letters.Filter, as_json: bool, limit: int) -> None:
    """List causes: letters grouped by fingerprint, the largest group first."""
    say_what_waits(context)
    with _session(context) as session:
        rows = [asdict(group) for group in letters.groups(session, which, limit)]
        emit(rows, ("fingerprint", "task", "error", "count", "first_seen", "last_seen", "example"), as_json=as_json)


@dead_letters.command(cls=CeleryCommand)
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")
@click.pass_context
@one_line_errors
def show(context: click.Context, id: str, as_json: bool) -> None:  # noqa: A002  # the word of the glossary
    """Show one dead letter with its arguments, headers, message, failed attempts and traceback."""
    say_what_waits(context)
    with _session(context) as session:
        letter = letters.get(session, id)
        if letter is None:
            click.echo(f"there is no dead letter {id}", err=True)
            context.exit(1)
        history = letters.history(session, id)
        whole = row_of(letter) | {
            "generation": letter.generation,
            "arguments": letter.arguments,
            "headers": letter.headers,
            "message": letters.message(letter),
        }
        if as_json:
            print_json(whole | {"history": history, "traceback": letter.traceback})
            return
        for name, value in whole.items():
            click.echo(f"{name:16} {letter.message if name == 'message' else value}")
        if history:
            click.echo()
            emit(history, HISTORY_SHOWN, as_json=False)
        click.echo(f"\n{letter.traceback}")


@dead_letters.command(cls=CeleryCommand)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.pass_context
@one_line_errors
def redrive(context: click.Context, ids: tuple[str, ...]) -> None:
    """Send dead letters again, each under its id and key; status 1 when one was not dead any more."""
    app = app_of(context)
    app.loader.import_default_modules()
    sent = [one for one in ids if send_again(app, one)]
    click.echo(f"{len(sent)} of {len(ids)} sent again")
    context.exit(0 if len(sent) == len(ids) else 1)


@dead_letters.command(cls=CeleryCommand)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.pass_context
@one_line_errors
def discard(context: click.Context, ids: tuple[str, ...]) -> None:
    """Give dead letters up; status 1 when one was not dead any more."""
    with _session(context, read_only=False) as session:
        gone = [one for one in ids if letters.move(session, one, ("dead",), "discarded")]
    click.echo(f"{len(gone)} of {len(ids)} discarded")
    context.exit(0 if len(gone) == len(ids) else 1)
