"""`celery -A <app> dead-letters`: the commands that change letters: edit, redrive, discard; and the running redrives."""

import json
import re
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import click
from celery.bin.base import CeleryCommand
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from conventions.app import ConventionsApp
from conventions.cli.actor_option import actor_option
from conventions.cli.base import app_of, emit, existing, one_line_errors, output_options, print_json, say
from conventions.cli.confirm import confirm
from conventions.cli.dead_letter_filters import MOST_BEGUN, STATE, selection_options
from conventions.cli.option_types import Pair
from conventions.cli.reveal_options import check_reason
from conventions.cli.shared_options import JSON, NEEDED_REASON, REASON, YES
from conventions.core.priority import Priority
from conventions.core.sealed_mark import SHOWN as SEALED
from conventions.dead_letters import discard_letters, redrive_pace_and_stop, redrive_rows
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.edit import Change, dropped, editable, value_of
from conventions.dead_letters.edit import edit as edit_letter
from conventions.dead_letters.edit_many import ArgumentEdit, Edited, edit_many, preview
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_rows import RedriveOrder
from conventions.dead_letters.redrive_selection import REDRIVE_LIMIT
from conventions.dead_letters.redrive_sender import begin_or_join
from conventions.dead_letters.redrive_status import RedriveStatus, Watch, doubts, doubts_of_edit
from conventions.dead_letters.sealed_letters import arguments_of, is_hidden
from conventions.declare.arguments_as_json import Arguments
from conventions.jobs.reveal import revealing
from conventions.metrics.worker_reports import WorkerReports

COLUMNS = ("id", "state", "actor", "reason", "note", "canary", "rate", "stop_at", "priority", "created_at", "ended_at")
SHOWN = (
    "id", "state", "total", "waiting", "by_others", "unanswered", "retrying", "succeeded", "dead", "sent_again", "ended", "error", "error_message", "actor",
    "reason", "created_at", "note", "why",
)  # fmt: skip
UNDER_WAY = "nothing new is begun: the redrive {} of the same letters is under way; of your options nothing is taken, neither numbers, priority nor reason"
LOOK_EVERY = 0.3  # seconds between two readings of a redrive
SHORT = 100  # characters of an error that fit beside a bar
MOST_FAULTS = 10
NUMBER = re.compile(r"[\d,.]+")


def add_to(group: click.Group) -> None:
    """Add these commands."""
    for command in (edit, edit_letters, redrive, discard, redrives_, stop):
        group.add_command(command)


@click.command(cls=CeleryCommand)
@click.argument("id")
@click.option("--set", "values", type=Pair(), multiple=True, metavar="NAME=VALUE",
              help="New value of an argument: JSON, or a text without quotes.")  # fmt: skip
@click.option("--drop", "gone", multiple=True, metavar="NAME", help="Leave an argument out; its default counts.")
@click.option("--arguments", "text", metavar="JSON", help="All arguments, in place of those that are there.")
@click.option("--reveal", is_flag=True, help="Show what is sealed, where the key is. The audit keeps it.")
@REASON
@actor_option
@JSON
@click.pass_context
@one_line_errors
def edit(
    context: click.Context,
    *,
    id: str,  # noqa: A002  # the word of the glossary
    values: tuple[tuple[str, str], ...],
    gone: tuple[str, ...],
    text: str | None,
    reveal: bool,
    reason: str | None,
    actor: str,
    as_json: bool,
) -> None:
    """Give a dead letter other arguments, checked by its task's annotations; opens an editor without an option.

    Arguments that the task no longer takes are dropped, as on the page, and named. Status 1 when nothing changes.
    What is sealed is shown, in the editor too, with --reveal.
    """
    if reveal:
        check_reason(reason)
    app = _loaded(context)
    with revealing(app, id, actor, reason or "") if reveal else nullcontext():
        arguments = _edited(app, id, values, gone, text)
        changes = _edit(app, id, arguments, actor, reason)
    left = [one.name for one in changes if one.name not in arguments]
    if as_json:
        print_json([{"name": one.name, "before": one.before, "after": one.after} for one in changes])
    else:
        shown = [f"{one.name}: dropped" if one.name in left and one.after is None else _shown(one) for one in changes]
        say("\n".join(shown) or "nothing is different")
    context.exit(0 if changes else 1)


def _edit(
    app: ConventionsApp,
    id: str,  # noqa: A002  # the word of the glossary
    arguments: dict[str, Any],
    actor: str,
    reason: str | None,
) -> list[Change]:
    try:
        return edit_letter(app, id, arguments, actor, reason)
    except TypeError as error:
        raise click.UsageError(str(error)) from error


@click.command(cls=CeleryCommand, name="edit-many")
@selection_options
@click.option("--set", "values", type=Pair(), multiple=True, metavar="NAME=VALUE",
              help="New value of an argument: JSON, or a text without quotes.")  # fmt: skip
@click.option("--drop", "gone", multiple=True, metavar="NAME", help="Leave an argument out; its default counts.")
@click.option("--rename", "names", type=Pair(), multiple=True, metavar="OLD=NEW", help="Give an argument another name.")
@click.option("--preview", "only_shows", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--reason", help="Why; kept in the audit. Needed, but for a preview.")
@actor_option
@YES
@JSON
@click.pass_context
@one_line_errors
def edit_letters(
    context: click.Context, *, which: Filter, values: tuple[tuple[str, str], ...], gone: tuple[str, ...], names: tuple[tuple[str, str], ...],
    only_shows: bool, reason: str | None, actor: str, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Edit many dead letters in one way: set, drop or rename arguments, shown before it is done.

    Each is checked by its task's annotations; one that does not fit is left, and named. Status 1 when nothing changes, or one is left.
    """
    app = _loaded(context)
    how = ArgumentEdit(names, gone, values)
    if how == ArgumentEdit():
        raise click.UsageError("say what to change: --set, --drop or --rename")
    if not only_shows and not (reason or "").strip():
        raise click.UsageError("say why with --reason, or look first with --preview")
    with app.database.session(read_only=True) as session:
        unknown = dead_letters.missing(session, which)
        count, which = dead_letters.seen(session, which)
        warnings = doubts_of_edit(session, which, WorkerReports(app.store).releases) if count else []
    for warning in warnings:
        say(f"warning: {warning}", err=True)
    for id_ in unknown:
        say(f"{id_} is no dead letter", err=True)
    found = preview(app, which, how)
    if not as_json:
        _show_edit(found, "would change")
    if not only_shows and found.changed:
        confirm(f"Change {found.changed:,} {'letter' if found.changed == 1 else 'letters'}?", yes=yes)
        found = edit_many(app, which, how, actor, reason)
        if not as_json:
            say(f"{found.changed:,} changed, {found.same:,} stay as they are, {found.refused.total():,} are left")
    if as_json:
        print_json(_edit_fields(found, done=not only_shows))
    context.exit(0 if found.changed and not found.refused and not unknown else 1)


def _show_edit(found: Edited, what: str) -> None:
    for id_, changes in found.examples:
        say(f"{id_}: {'; '.join(map(_shown, changes))}")
    say(f"{found.changed:,} {what}, {found.same:,} stay as they are, {found.refused.total():,} cannot be changed so")
    for why, count in found.refused.most_common(MOST_FAULTS):
        say(f"  {count:,}: {why}", err=True)


def _edit_fields(found: Edited, *, done: bool) -> dict[str, Any]:
    examples = [
        {"id": id_, "changes": [{"name": one.name, "before": one.before, "after": one.after} for one in changes]}
        for id_, changes in found.examples
    ]
    return {
        "done": done,
        "changed": found.changed,
        "same": found.same,
        "refused": [{"why": why, "letters": count} for why, count in found.refused.most_common()],
        "refused_ids": found.refused_ids,
        "examples": examples,
    }


def _edited(
    app: ConventionsApp,
    id: str,  # noqa: A002
    values: tuple[tuple[str, str], ...],
    gone: tuple[str, ...],
    text: str | None,
) -> dict[str, Any]:
    with app.database.session(read_only=True) as session:
        letter = dead_letters.get(session, id)
        taken = editable(app, letter, id).arguments
        there: dict[str, Any] = arguments_of(app, letter) if letter is not None else {}
        hides = is_hidden(letter)
    if text is None and not values and not gone:
        if hides:
            raise click.UsageError(
                f"{id} is sealed: --set, --drop and --arguments change it unseen; --reveal opens it in the editor"
            )
        text = click.edit(json.dumps(there, indent=2, ensure_ascii=False), extension=".json")
    found = there if text is None else _json(text, "--arguments")
    if not isinstance(found, dict):
        raise click.UsageError('the arguments are a JSON object, such as {"user_id": 7}')
    for name in gone:
        if name not in found:
            raise click.UsageError(
                f"--drop {name}: the letter has no such argument; it has {', '.join(found) or 'none'}"
            )
    obsolete = dropped(taken, there)
    kept = {name: value for name, value in found.items() if name not in gone and name not in obsolete}
    return kept | {name: _value(taken, name, value) for name, value in values}


def _value(taken: Arguments, name: str, text: str) -> Any:
    try:
        return value_of(taken, name, text)
    except ValueError as error:
        raise click.UsageError(f"--set {error}") from error


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{what} is not JSON ({error}); a text is written in quotes") from error


def _shown(change: Change) -> str:
    if (change.before, change.after) == (SEALED, SEALED):
        return f"{change.name}: {SEALED}"
    return f"{change.name}: {json.dumps(change.before, ensure_ascii=False)} -> {json.dumps(change.after, ensure_ascii=False)}"


@click.command(cls=CeleryCommand)
@selection_options
@STATE
@click.option(
    "--canary", type=click.IntRange(0), default=redrive_pace_and_stop.CANARY, show_default=True, help="Tried first."
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=redrive_pace_and_stop.RATE, show_default=True,
              help="Letters a second, of the rest.")  # fmt: skip
@click.option("--stop-at", type=click.FloatRange(0, 100), default=redrive_pace_and_stop.STOP_AT, show_default=True,
              metavar="PERCENT", help="Send no more when more of those that have ended failed again.")  # fmt: skip
@click.option("--priority", type=click.Choice([one.name.lower() for one in Priority]),
              help="Of their messages, so that new ones go first; default: as each was sent.")  # fmt: skip
@click.option("--again", is_flag=True, help=f"Also letters that were redriven {REDRIVE_LIMIT} times.")
@REASON
@click.option("--no-wait", is_flag=True, help="Start it, print its id, and do not watch it.")
@actor_option
@YES
@JSON
@click.pass_context
@one_line_errors
def redrive(
    context: click.Context, *, which: Filter, canary: int, rate: float, stop_at: float, priority: str | None, again: bool, reason: str | None,
    no_wait: bool, actor: str, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Send dead letters again: some first, then the rest, unless too many fail again.

    The recorder beside a worker does it; this command watches, and may be ended. Each letter keeps its id, and its
    idempotency key unless an edit changed what that is made of. Status 0 when all of them succeeded.
    """
    app = _loaded(context)
    urgent = None if priority is None else Priority[priority.upper()]
    try:
        order = RedriveOrder(
            which, actor, reason, canary=canary, rate=rate, stop_at=stop_at, again=again, priority=urgent
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with app.database.session(read_only=True) as session:
        unknown = dead_letters.missing(session, which)
        count, which = dead_letters.seen(session, which)
        held = redrive_rows.held_back(session, which)
        warnings = doubts(app, session, which, WorkerReports(app.store).releases) if count else []
    warnings += [f"{id_} is no {which.state} letter" for id_ in unknown]
    if held and not again:
        warnings.append(f"{held} were redriven {REDRIVE_LIMIT} times before and are left; --again sends them, too")
        count -= held
    for warning in warnings:
        say(f"warning: {warning}", err=True)
    if not count:
        say(
            f"no {which.state} letter to send: none matches; others have sent them, or an edit has changed what they were chosen by",
            err=True,
        )
        context.exit(1)
    kind = f"{which.state} {'letter' if count == 1 else 'letters'}"
    confirm(f"Send {count:,} {kind} again, {min(canary, count)} first?", yes=yes)
    begun = begin_or_join(app, replace(order, which=which))
    id_ = begun.id
    if not begun.is_new:
        say(f"warning: {UNDER_WAY.format(id_)}", err=True)
    watch = Watch(app)
    one = _look(watch, app, id_) if no_wait else _watch(watch, app, id_, quiet=as_json)
    row, counts = one.row, one.counts
    if as_json:
        print_json(_fields(one))
    elif no_wait:
        say(id_)
    else:
        say(_summary(one))
        say(row.note, nl=bool(row.note))
        if counts.running:
            say(f"{counts.running} more were sent and go on: dead-letters redrives")
        if counts.failing:
            say(f"why: dead-letters groups --redrive {id_}")
    context.exit(0 if not unknown and (no_wait or (row.state == "finished" and not counts.dead + counts.ended)) else 1)


def _summary(one: RedriveStatus) -> str:
    otherwise = f", {one.counts.ended} ended otherwise (cancelled, purged, lost)" if one.counts.ended else ""
    others = f", {one.by_others} that others have sent, discarded or edited" if one.by_others else ""
    return f"{one.row.state}: {one.counts.succeeded} succeeded, {one.counts.dead} failed{otherwise}, {one.waiting} not sent{others}"


def _watch(watch: Watch, app: ConventionsApp, id: str, *, quiet: bool) -> RedriveStatus:  # noqa: A002
    if not quiet:
        say(f"redrive {id}", err=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[more]}", markup=False),
    )
    console = Console(stderr=True)
    said = ""
    with Progress(*columns, console=console, disable=quiet) as bars:
        bar = bars.add_task("waiting", more="")
        try:
            while (one := _look(watch, app, id)).is_open:
                _draw(bars, bar, one)
                if not quiet and (why := NUMBER.sub("", one.why)) != said:  # an unchanged redrive is not printed again
                    console.print(Text(one.why))  # also without a terminal to draw on
                    said = why
                time.sleep(LOOK_EVERY)
        except KeyboardInterrupt:
            say(f"\nit goes on: dead-letters redrives shows it, dead-letters stop {id} ends it", err=True)
            raise
        _draw(bars, bar, one)
    return one


def _draw(bars: Progress, bar: TaskID, one: RedriveStatus) -> None:
    counts = one.counts
    named = {
        "waiting": one.waiting, "unanswered": counts.unanswered, "retrying": counts.retrying,
        "succeeded": counts.succeeded, "dead": counts.dead, "ended otherwise": counts.ended,
    }  # fmt: skip
    more = ", ".join(f"{count:,} {name}" for name, count in named.items() if count)
    if one.error is not None:
        more += f" · {escape(': '.join(one.error)[:SHORT])}"
    ended = counts.answered - counts.retrying
    bars.update(bar, description=one.row.state, total=one.row.total, completed=ended, more=more)


def _look(watch: Watch, app: ConventionsApp, id: str) -> RedriveStatus:  # noqa: A002
    with app.database.session(read_only=True) as session:
        row = redrive_rows.get(session, id)
        if row is None:
            raise click.UsageError(f"there is no redrive {id}")
        found = watch.look([row], session)
        session.expunge_all()
    return watch.explain(found)[0]


def _fields(one: RedriveStatus) -> dict[str, Any]:
    error, message = one.error or (None, None)
    found = {name: getattr(one.row, name) for name in COLUMNS} | one.numbers()
    return found | {"error": error, "error_message": message, "why": one.why, "stop_reason": one.stop_reason}


@click.command("redrives", cls=CeleryCommand)
@output_options
@click.pass_context
@one_line_errors
def redrives_(context: click.Context, as_json: bool, limit: int) -> None:
    """List redrives with their status, the newest first, and what the open ones wait for."""
    watch = Watch(app_of(context))
    with existing(app_of(context).database).session(read_only=True) as session:
        found = watch.look(redrive_rows.listing(session, limit + 1), session)
        session.expunge_all()
    emit(map(_fields, watch.explain(found)), SHOWN, as_json=as_json, limit=limit, short=("id",))


@click.command(cls=CeleryCommand)
@click.argument("id")
@REASON
@actor_option
@JSON
@click.pass_context
@one_line_errors
def stop(context: click.Context, id: str, reason: str | None, actor: str, as_json: bool) -> None:  # noqa: A002
    """Send no more letters of the redrive ID; status 1 when it had already ended."""
    with existing(app_of(context).database).session() as session:
        if redrive_rows.get(session, id) is None:
            begun = redrive_rows.ids_that_begin(session, id, MOST_BEGUN)
            if begun:  # nothing is stopped by a guess
                raise click.UsageError(f"{id} is the beginning of {' and of '.join(begun)}: give a whole id")
            raise click.UsageError(f"there is no redrive {id}; dead-letters redrives lists them")
        stopped = redrive_rows.cancel(session, id, actor, reason)
    if as_json:
        print_json({"id": id, "stopped": stopped})
    else:
        say(f"{id} sends no more" if stopped else f"{id} has ended before")
    context.exit(0 if stopped else 1)


@click.command(cls=CeleryCommand)
@selection_options
@NEEDED_REASON
@actor_option
@YES
@JSON
@click.pass_context
@one_line_errors
def discard(context: click.Context, *, which: Filter, reason: str, actor: str, yes: bool, as_json: bool) -> None:
    """Discard dead letters; status 1 when there was none, or one of the ids was no longer dead."""
    app = app_of(context)
    with app.database.session(read_only=True) as session:
        count, which = dead_letters.seen(session, which)
    gone = newer = 0
    if count:
        confirm(f"Give up {count:,} dead {'letter' if count == 1 else 'letters'}?", yes=yes)
        with app.database.session() as session:
            gone = discard_letters.discard(session, which, actor, reason, None if yes else count)
            newer = dead_letters.newer(session, which)
    if newer and not yes:
        say(f"{newer:,} more died since you were asked, and stay", err=True)
    if as_json:
        print_json({"discarded": gone})
    else:
        say(f"{gone} of {len(which.ids) or gone} discarded")
    context.exit(0 if gone and gone >= len(set(which.ids)) else 1)


def _loaded(context: click.Context) -> ConventionsApp:
    app = app_of(context)
    app.loader.import_default_modules()
    return app
