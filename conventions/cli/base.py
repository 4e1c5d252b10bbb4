"""What all sub-commands share: the application, output as tables or JSON, errors as one line."""

import functools
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
from redis.exceptions import RedisError
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from conventions.app import ConventionsApp
from conventions.cli.fitted_table import fitted_table
from conventions.cli.shared_options import JSON
from conventions.core.errors import ConfigurationError, ConventionError
from conventions.core.network_errors import is_network_error
from conventions.core.printable_text import printable
from conventions.core.redis_answers import fault_of
from conventions.core.time_units import local_time
from conventions.sealing.shown_to_people import closed
from conventions.storage.database import Database

SPACES = "\n\u00a0\u3000"  # Python does not count them as printable
SHORT_IDS = "ids are cut to their beginnings, which `job`, `dead-letters show` and `--redrive` take; a wider terminal and --json have all of them"
WIDE = 250  # width of a table that does not go to a terminal


def app_of(context: click.Context) -> ConventionsApp:
    """The application named by `-A`. Raises: click.UsageError if `create_app` did not make it."""
    app = context.obj.app
    if not isinstance(app, ConventionsApp):
        raise click.UsageError("name an application made by create_app: celery -A tasks …")
    return app


def existing(database: Database) -> Database:
    """The database, if it is there: to connect to an SQLite file that is not would make an empty one. Raises: ConfigurationError."""
    if not database.is_there:
        raise ConfigurationError(
            [f"there is no database at {database.url.database}; `celery -A … db upgrade` makes it"]
        )
    return database


MOST_ROWS = 1_000_000  # of a listing: more than anybody reads, and less than SQL and Redis refuse


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json` and `--limit`, which every listing has."""
    function = click.option(
        "--limit", type=click.IntRange(1, MOST_ROWS), default=50, show_default=True, help="Rows at the most."
    )(function)
    return JSON(function)


def print_json(value: Any) -> None:
    """Print one JSON value to standard output."""
    click.echo(json_of(value, indent=2))


def json_of(value: Any, indent: int | None = None) -> str:
    """JSON that is safe on a terminal: control characters and half characters become JSON escapes."""
    text = json.dumps(value, default=jsonable, ensure_ascii=False, indent=indent)
    return "".join(one if one.isprintable() or one in SPACES else json.dumps(one)[1:-1] for one in text)


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print text without control characters: most of it comes from other people."""
    click.echo(printable(str(text), lines=True), err=err, nl=nl)


def emit(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    limit: int | None = None,
    short: Collection[str] = (),
) -> None:
    """Print rows: every field as JSON, or the given columns as a table.

    Args:
        rows: the rows; where more match than `limit`, one more at least.
        columns: of the table.
        as_json: which form.
        limit: rows at the most; a line on standard error says that there are more.
        short: columns of ids of which `job` and others take the beginning, which is shown where a terminal is too narrow.
    """
    found = list(rows)
    _print(found[:limit], columns, as_json=as_json, short=short)
    if limit is not None and len(found) > limit:
        say(f"the first {limit:,}; --limit shows more", err=True)


def _print(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, short: Collection[str]) -> None:
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("nothing found")
        return
    cells = [[printable(_shown(row.get(column)), lines=True) for column in columns] for row in rows]
    console = Console()
    if not console.is_terminal:
        console, short = Console(width=WIDE), ()  # a pipe has no width, and a script wants whole ids
    table, is_short = fitted_table(columns, cells, console.width, short)
    console.print(table)
    if is_short:
        say(SHORT_IDS, err=True)


def one_line_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn an error of a server or a rule into one line and status 2, without a traceback. What is sealed stays so, see `jobs/reveal.py`."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            with closed():
                return function(*args, **kwargs)
        except ConfigurationError:
            raise
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            # During a fail-over, do not advise to migrate.
            step = "look at the server" if is_network_error(error) else "did `celery -A … db upgrade` run?"
            raise ConfigurationError([f"the database cannot do this: {reason} ({step})"]) from error
        except RedisError as error:
            raise ConfigurationError([fault_of(error)]) from error
        except ConventionError as error:
            raise ConfigurationError([str(error)]) from error

    return guarded


def jsonable(value: Any) -> Any:
    """The JSON form of dates and times: ISO 8601, in the time zone of the settings, with its offset. Raises: TypeError for any other type."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(ZoneInfo(_zone())).isoformat()
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


def written(moment: datetime) -> str:
    """A time in the form of every command and page: in the time zone of the settings, with the zone's name."""
    return local_time(moment, _zone())


def _zone() -> str:
    context = click.get_current_context(silent=True)
    app = getattr(context.obj, "app", None) if context else None
    return app.settings.timezone if isinstance(app, ConventionsApp) else "UTC"


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return written(value)
    return "" if value is None else str(value)
