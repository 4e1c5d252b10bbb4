"""`celery -A <app> messages`: list messages that wait, and cancel some of them or move them to another queue."""

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import click
from celery.bin.base import CeleryCommand

from conventions.app import ConventionsApp
from conventions.broker.consumed_queues import ask_workers
from conventions.broker.header_names import ACTOR, ENQUEUED_AT
from conventions.broker.waiting_messages import Waiting
from conventions.cli.actor_option import actor_option
from conventions.cli.base import app_of, emit, json_of, one_line_errors, output_options, print_json, say
from conventions.cli.confirm import confirm
from conventions.cli.ctrl_c import stop_between_steps
from conventions.cli.option_types import Age, Pair
from conventions.cli.shared_options import JSON, NEEDED_REASON, YES
from conventions.cli.unknown_names import say_unknown
from conventions.core.durations import duration
from conventions.core.time_units import moment
from conventions.execution.change_waiting import Outcome, cancel_selected, move_selected
from conventions.execution.waiting_selection import Selection, found
from conventions.now.job_filter import HeldBack, state_of_waiting
from conventions.now.pause_targets import all_queues
from conventions.sealing.argument_names import ArgumentNames
from conventions.sealing.blind_index import sought
from conventions.tasks.aliases import names_of

COLUMNS = ("id", "task", "queue", "state", "age", "attempt", "actor", "arguments")
FILTERS = (
    click.option("--queue", "queues", multiple=True, help="Queue name; may be given several times. Default: all."),
    click.option("--task", help="Task name, or the last part of it."),
    click.option("--arg", "arguments", type=Pair(), multiple=True, metavar="NAME=VALUE", help="Value of an argument."),
    click.option("--sender", default="", help="Actor who sent it."),
    click.option("--older-than", type=Age(), metavar="AGE", help="Sent before so long, such as 2h or 7d."),
    click.option("--signed-with", default="", metavar="KEY", help="Name of the key that has signed it."),
)
NAMES = ("queues", "task", "arguments", "sender", "older_than", "signed_with")  # of the filters


@click.group()
def messages() -> None:
    """List messages that wait in Redis; cancel some of them, or move them to another queue."""


def _selecting(function: Callable[..., int | None]) -> Callable[..., Any]:
    """Add the filters; the function receives them as `app` and `selection`.

    It returns the status with which the command ends since nothing matches: a name may be mistyped then. Else it returns `None`.
    """

    @one_line_errors
    @functools.wraps(function)
    def selecting(**options: Any) -> None:
        context = click.get_current_context()
        app = app_of(context)
        app.loader.import_default_modules()
        of = {name: options.pop(name) for name in NAMES}
        status = function(app=app, selection=_selection(app, **of), **options)
        if status is not None:
            say_unknown(app, task=of["task"], arguments=of["arguments"])
            context.exit(status)

    for option in reversed(FILTERS):
        selecting = option(selecting)
    return selecting


def _changing(function: Callable[..., int | None]) -> Callable[..., Any]:
    """The same for a command that changes messages: nobody changes all of them by leaving a filter out. Raises: UsageError."""
    selecting = _selecting(function)

    @functools.wraps(selecting)
    def changing(**options: Any) -> Any:
        if not any(options[name] for name in NAMES):
            raise click.UsageError(
                "say which: --queue, --task, --arg, --sender, --older-than or --signed-with; `purge` removes all"
            )
        return selecting(**options)

    return changing


def _selection(
    app: ConventionsApp,
    *,
    queues: tuple[str, ...],
    task: str | None,
    arguments: tuple[tuple[str, str], ...],
    sender: str,
    older_than: timedelta | None,
    signed_with: str,
) -> Selection:
    known = all_queues(app)
    for name in queues:
        _check_queue(known, name, "--queue")
    chosen = queues or tuple(sorted(known))
    return Selection(
        chosen,
        _tasks(app, task),
        *sought(app.name_keys, ArgumentNames.of(app.tasks.values()), arguments),
        sender,
        older_than,
        signed_with,
        task=task or "",
        all_queues=not queues,
    )


def _check_queue(known: set[str], name: str, option: str) -> None:
    if name not in known:
        raise click.BadParameter(f"there is no queue {name}; there are: {', '.join(sorted(known))}", param_hint=option)


def _tasks(app: ConventionsApp, task: str | None) -> frozenset[str]:
    """All names under which messages of a task may wait; a name that is registered nowhere here means itself."""
    if task is None:
        return frozenset()
    named = {one.name for name, one in app.tasks.items() if name == task or name.endswith(f".{task}")}
    if len(named) > 1:
        raise click.BadParameter(f"there are several: {', '.join(sorted(named))}", param_hint="--task")
    return names_of(app.tasks, named) or frozenset([task])


@messages.command("list", cls=CeleryCommand)
@_selecting
@output_options
def list_messages(*, app: ConventionsApp, selection: Selection, as_json: bool, limit: int) -> int | None:
    """List messages that wait, those that are not due first, in the order in which they come."""
    now = datetime.now(UTC)
    held_back = HeldBack(app)
    rows = [_row(one, now, held_back) for one in islice(found(app, selection), limit + 1)]
    if not as_json:
        rows = [row | {"arguments": None if row["arguments"] is None else json_of(row["arguments"])} for row in rows]
    emit(rows, COLUMNS, as_json=as_json, limit=limit, short=("id",))
    return None if rows else 0


def _row(one: Waiting, now: datetime, held_back: HeldBack) -> dict[str, Any]:
    headers = one.headers
    sent = moment(headers.get(ENQUEUED_AT))
    return {
        "id": one.message_id,
        "task": headers.get("task"),
        "queue": one.queue,
        "state": state_of_waiting(one, held_back=held_back.holds(one)),
        "age": None if sent is None else duration(max(0.0, (now - sent).total_seconds())),
        "attempt": max(one.attempt, 1),
        "actor": headers.get(ACTOR),
        "arguments": one.arguments,
    }


@messages.command(cls=CeleryCommand)
@_selecting
@JSON
def count(*, app: ConventionsApp, selection: Selection, as_json: bool) -> int | None:
    """Count messages that wait, by queue and task."""
    counted = Counter((one.queue, str(one.headers.get("task"))) for one in found(app, selection))
    rows = [{"queue": queue, "task": task, "messages": count} for (queue, task), count in counted.most_common()]
    emit(rows, ("queue", "task", "messages"), as_json=as_json)
    held = sum(app.broker.sizes(name).in_flight for name in selection.queues)
    say(
        _messages(counted.total())
        + (f"; {held:,} more of these queues are with workers, which run them or have read them ahead" if held else ""),
        err=as_json,
    )
    return None if counted else 0


@messages.command(cls=CeleryCommand)
@_changing
@NEEDED_REASON
@YES
@JSON
@actor_option
def cancel(
    *,
    app: ConventionsApp,
    selection: Selection,
    reason: str,
    yes: bool,
    as_json: bool,
    actor: str,
) -> int | None:
    """Cancel the messages that match. Each leaves a row that says so; there is no undo. Status 1 when none matches."""
    why = _reason(reason)
    if not _agreed(app, selection, "Cancel", yes=yes):
        return 1
    with stop_between_steps() as stops:
        done = cancel_selected(app, selection, actor, why, stops=stops)
    _tell(done, "cancelled", as_json=as_json)
    return None


@messages.command(cls=CeleryCommand)
@_changing
@click.option("--to", required=True, help="The other queue.")
@NEEDED_REASON
@YES
@JSON
@actor_option
def move(
    *,
    app: ConventionsApp,
    selection: Selection,
    to: str,
    reason: str,
    yes: bool,
    as_json: bool,
    actor: str,
) -> int | None:
    """Move the messages that match to another queue, in their order. Status 1 when none matches."""
    why = _reason(reason)
    _check_queue(all_queues(app), to, "--to")
    others = tuple(name for name in selection.queues if name != to)
    if not others:
        raise click.BadParameter("they are there already", param_hint="--to")
    selection = replace(selection, queues=others)
    if not _agreed(app, selection, f"Move to {to}:", yes=yes, to=to):
        return 1
    with stop_between_steps() as stops:
        done = move_selected(app, selection, to, actor, why, stops=stops)
    _tell(done, f"moved to {to}", as_json=as_json)
    return None


def _reason(text: str) -> str:
    if not text.strip():
        raise click.BadParameter("say why", param_hint="--reason")
    return text.strip()


def _agreed(app: ConventionsApp, selection: Selection, what: str, *, yes: bool, to: str = "") -> bool:
    """Count, warn of the queue `to`, and ask. Returns whether there are any. Raises: UsageError, Abort."""
    counted = Counter(one.queue for one in found(app, selection))
    if not counted:
        say("no message that waits matches", err=True)
        return False
    if to:
        _warn_of(app, to)
    each = ", ".join(f"{count:,} in {queue}" for queue, count in counted.most_common())
    confirm(f"{what} {_messages(counted.total())} ({each})?", yes=yes)
    return True


def _warn_of(app: ConventionsApp, queue: str) -> None:
    """Say on standard error where messages of a queue would only wait."""
    consumers = ask_workers(app.store, app.control)
    if queue in consumers.queues:
        return
    if queue in consumers.paused:
        say(f"the queue {queue} is paused: what is moved there waits until it is resumed", err=True)
        return
    silent = f"; {consumers.silent} living ones have not answered" if consumers.silent else ""
    say(f"no worker consumes the queue {queue}: what is moved there waits until one does{silent}", err=True)


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"


def _tell(done: Outcome, what: str, *, as_json: bool) -> None:
    """Say what was done. Status 1 if it was stopped before its end."""
    left = done.left if done.complete else None
    if as_json:
        print_json({"done": done.total, "queues": dict(done.done), "by_workers": done.told, "left": left})
    else:
        say(f"{'1 message is' if done.total == 1 else f'{done.total:,} messages are'} {what}")
        if done.told:
            say(
                f"{done.told:,} of them end when a worker takes them, since a chain, a chord or a caller waits for them"
            )
    if left is None:
        say("stopped before its end: the same command does the rest", err=True)
        click.get_current_context().exit(1)
    if left and not as_json:
        say(
            f"{left:,} could not be changed: workers have taken them, or another program or a later release has written them",
            err=True,
        )
