"""`celery -A <app> dead-letters`: find and show dead letters, and write a note to one. The commands that change them: `dead_letter_changes.py`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click
from celery.bin.base import CeleryCommand
from redis.exceptions import RedisError
from sqlalchemy.orm import Session

from conventions.cli import dead_letter_changes
from conventions.cli.actor_option import actor_option
from conventions.cli.base import (
    app_of,
    emit,
    existing,
    json_of,
    one_line_errors,
    output_options,
    print_json,
    say,
    written,
)
from conventions.cli.dead_letter_filters import MOST_BEGUN, filter_options, whole_group
from conventions.cli.reveal_options import RevealedTo, reveal_options
from conventions.cli.shared_options import JSON
from conventions.core import sealed_mark
from conventions.core.errors import ConfigurationError
from conventions.dead_letters import groups as letter_groups
from conventions.dead_letters import letters
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.sealed_letters import arguments_of, is_sealed
from conventions.jobs.reveal import revealing
from conventions.records import audit
from conventions.records.journal import Journal
from conventions.storage.tables import DeadLetterRow

COLUMNS = (
    "id", "task", "queue", "error", "error_message", "fingerprint", "attempts", "actor", "state",
    "first_failed_at", "last_failed_at",
)  # fmt: skip
AUDIT_LIMIT, AUDIT_COLUMNS = 100, ("at", "actor", "action", "reason", "before", "after")
GROUP = (
    "fingerprint",
    "task",
    "error",
    "error_message",
    "count",
    "first_seen",
    "last_seen",
    "example",
    "place",
    "note",
    "releases",
)
GROUPS_SAY = "count: letters that are {state} now; first seen: the first failure of any of these, also one that was tried again. `now` counts the deaths of a cause since it began"
HISTORY_SHOWN = ("attempt", "kind", "error", "error_message", "ended_at", "worker", "release", "runtime", "generation")
SHOWN = ("id", "task", "error", "error_message", "attempts", "actor", "last_failed_at")


@click.group("dead-letters")
def dead_letters() -> None:
    """Find, show, edit, redrive and discard dead letters."""


@contextmanager
def _session(context: click.Context, *, read_only: bool = True) -> Iterator[Session]:
    with existing(app_of(context).database).session(read_only=read_only) as session:
        yield session


def say_what_waits(context: click.Context) -> None:
    """Print a line on standard error if the journal has events that are not in SQL yet."""
    try:
        waiting = Journal(app_of(context).store).length()
    except (RedisError, ConfigurationError):  # the letters in SQL can be shown all the same
        say("Redis cannot be reached: there may be events that are not recorded yet", err=True)
        return
    if waiting:
        say(f"not recorded yet: {waiting} {'event' if waiting == 1 else 'events'}", err=True)


def row_of(letter: DeadLetterRow) -> dict[str, Any]:
    """The fields of a dead letter in every listing."""
    return {name: getattr(letter, name) for name in COLUMNS}


def whole(letter: DeadLetterRow) -> dict[str, Any]:
    """A dead letter with its whole message."""
    return row_of(letter) | {
        "generation": letter.generation,
        "redrive_id": letter.redrive_id,
        "arguments": sealed_mark.SHOWN if is_sealed(letter) else letter.arguments,
        "headers": letter.headers,
        "message": letters.message(letter),
    }


def _in_words(releases: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in releases.items())


@dead_letters.command("list", cls=CeleryCommand)
@filter_options
@output_options
@click.pass_context
@one_line_errors
def list_(context: click.Context, which: Filter, as_json: bool, limit: int) -> None:
    """List dead letters, the newest failure first."""
    say_what_waits(context)
    with _session(context) as session:
        rows = [row_of(letter) for letter in letters.listing(session, which, limit + 1)]
    emit(rows, COLUMNS if as_json else SHOWN, as_json=as_json, limit=limit, short=("id",))


@dead_letters.command(cls=CeleryCommand)
@filter_options
@output_options
@click.pass_context
@one_line_errors
def groups(context: click.Context, which: Filter, as_json: bool, limit: int) -> None:
    """List causes: letters grouped by fingerprint, the largest group first."""
    say_what_waits(context)
    with _session(context) as session:
        rows = [asdict(group) for group in letter_groups.groups(session, which, limit + 1)]
    if not as_json:
        rows = [row | {"releases": _in_words(row["releases"])} for row in rows]
    emit(rows, GROUP, as_json=as_json, limit=limit, short=("example",))
    if rows and not as_json:
        say(GROUPS_SAY.format(state=which.state or "kept"), err=True)


@dead_letters.command(cls=CeleryCommand)
@click.argument("id")
@reveal_options
@JSON
@click.pass_context
@one_line_errors
def show(
    context: click.Context,
    id: str,  # noqa: A002  # the word of the glossary
    as_json: bool,
    revealed_to: RevealedTo | None,
) -> None:
    """Show one dead letter with its arguments, headers, message, attempts and traceback. The beginning of its id will do, where no other one begins so."""
    say_what_waits(context)
    with _session(context) as session:
        letter = letters.get(session, id)
        if letter is None and len(begun := letters.ids_that_begin(session, id, MOST_BEGUN)) == 1:
            letter = letters.get(session, begun[0])
        if letter is None:
            say(
                f"several ids begin with {id}: {', '.join(begun)}" if begun else f"there is no dead letter {id}",
                err=True,
            )
            context.exit(1)
        id = letter.id  # noqa: A001  # the same
        history = letters.history(session, id)
        entries = [
            {name: getattr(entry, name) for name in AUDIT_COLUMNS}
            for entry in reversed(audit.listing(session, AUDIT_LIMIT, target=id))
        ]
        described = whole(letter) | {"release": letters.failed_by(history)}
        if revealed_to is not None:
            with revealing(app_of(context), id, *revealed_to):
                described["arguments"] = arguments_of(app_of(context), letter)
        if as_json:
            print_json(described | {"history": history, "traceback": letter.traceback, "audit": entries})
            return
        for name, value in described.items():
            text = written(value) if isinstance(value, datetime) else value
            say(f"{name:16} {letter.message if name == 'message' else text}")
        for rows, columns in ((history, HISTORY_SHOWN), (entries, AUDIT_COLUMNS)):
            if rows:
                say()
                emit(rows, columns, as_json=False)
        say(f"\n{letter.traceback}")


@dead_letters.command(cls=CeleryCommand)
@filter_options
@click.option("--json", is_flag=True, expose_value=False, help="As every command has it; there is no other form.")
@click.pass_context
@one_line_errors
def export(context: click.Context, which: Filter) -> None:
    """Write all dead letters that match as JSON lines, whole, with arguments, headers and message."""
    say_what_waits(context)
    with _session(context) as session:
        for letter in letters.every(session, which):
            say(json_of(whole(letter) | {"traceback": letter.traceback}))


@dead_letters.command(cls=CeleryCommand)
@click.argument("group")
@click.argument("text")
@actor_option
@JSON
@click.pass_context
@one_line_errors
def note(context: click.Context, *, group: str, text: str, actor: str, as_json: bool) -> None:
    """Write a note on a group, in place of the last one; an empty text removes it."""
    group = whole_group(group)
    with _session(context, read_only=False) as session:
        if not letter_groups.annotate(session, group, text, actor):
            raise click.UsageError(f"there is no group {group}; dead-letters groups lists them")
    if as_json:
        print_json({"group": group, "note": text})
    else:
        say(f"noted on {group}" if text else f"no note on {group}")


dead_letter_changes.add_to(dead_letters)
