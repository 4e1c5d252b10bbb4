"""Filters of dead letters on the command line: the fields of `Filter` as options, the same in every command."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import click
from sqlalchemy.orm import Session

from conventions.cli.base import app_of, existing, one_line_errors
from conventions.cli.option_types import Age, Pair
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters import redrive_rows
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.groups import groups_that_begin
from conventions.sealing.argument_names import ArgumentNames
from conventions.sealing.blind_index import sought

MOST_BEGUN = 5  # names that are shown where several begin so


FILTERS = (
    click.option("--task", help="Task name, or the last part of it."),
    click.option("--queue", help="Queue name."),
    click.option("--error", help="Class name of the exception."),
    click.option("--group", help="Fingerprint of a group, or its beginning."),
    click.option("--redrive", help="Id of the redrive that sent it last."),
    click.option("--left-by", help="Id of a redrive that was to send it, and has not."),
    click.option("--text", help="Somewhere in message, traceback or arguments."),
    click.option("--arg", "arguments", type=Pair(), multiple=True, metavar="NAME=VALUE", help="Value of an argument."),
    click.option("--older-than", type=Age(), metavar="AGE", help="Failed last before so long, such as 2h or 7d."),
    click.option("--newer-than", type=Age(), metavar="AGE", help="Failed last within so long."),
)


STATE = click.option("--state", type=click.Choice(dead_letters.STATES), default="dead", show_default=True,
                     help="Of the letters.")  # fmt: skip


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the filters and `--state`; the function receives them as `which`."""

    @functools.wraps(function)  # keeps the options that are declared below this one
    def with_filter(*args: Any, **options: Any) -> Any:
        return function(*args, which=_with_codes(_with_whole_names(_filter(options))), **options)

    return _declared(with_filter, (*FILTERS, STATE))


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ids, `--group` or `--all`, and the filters; the function receives them as `which`."""

    @functools.wraps(function)
    def with_selection(*args: Any, ids: tuple[str, ...], every: bool, **options: Any) -> Any:
        if sum(map(bool, (ids, every, options["group"] and not every))) != 1:
            raise click.UsageError("say which: ids, --group FINGERPRINT, or --all, which filters may narrow")
        return function(*args, which=_with_codes(_with_whole_names(_filter(options, ids))), **options)

    chosen = (
        click.argument("ids", nargs=-1, metavar="[ID]..."),
        click.option("--all", "every", is_flag=True, help="All dead letters that match the filters."),
    )
    return _declared(with_selection, (*chosen, *FILTERS))


def _filter(options: dict[str, Any], ids: tuple[str, ...] = ()) -> Filter:
    names = ("task", "queue", "error", "group", "redrive", "left_by", "text", "arguments", "older_than", "newer_than")
    found = {name: options.pop(name) for name in names}
    return Filter(state=options.pop("state", "dead"), ids=ids, **found)


def _with_whole_names(which: Filter) -> Filter:
    if which.group is not None:
        which = replace(which, group=whole_group(which.group))
    if which.redrive is not None:
        which = replace(which, redrive=_whole(which.redrive, "redrives", redrive_rows.ids_that_begin))
    if which.left_by is not None:
        which = replace(which, left_by=_whole(which.left_by, "redrives", redrive_rows.ids_that_begin))
    return which


@one_line_errors
def _with_codes(which: Filter) -> Filter:
    if not which.arguments:
        return which
    app = app_of(click.get_current_context())
    app.loader.import_default_modules()
    return replace(which, **sought(app.name_keys, ArgumentNames.of(app.tasks.values()), which.arguments)._asdict())


def whole_group(beginning: str) -> str:
    """The fingerprint of which this is the beginning, as pages show it; the same text where no group begins so. Raises: UsageError."""
    found: str = _whole(beginning, "groups", groups_that_begin)
    return found


@one_line_errors
def _whole(beginning: str, what: str, find: Callable[[Session, str, int], Sequence[str]]) -> str:
    with existing(app_of(click.get_current_context()).database).session(read_only=True) as session:
        found = find(session, beginning, MOST_BEGUN)
    if beginning in found or not found:
        return beginning
    if len(found) > 1:
        raise click.UsageError(f"several {what} begin with {beginning}: {', '.join(found)}")
    return found[0]


def _declared(function: Callable[..., Any], options: tuple[Any, ...]) -> Callable[..., Any]:
    for option in reversed(options):
        function = option(function)
    return function
