"""What the commands of `celery -A <app> schedule` share: the list of schedules, options, times."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
from redis.exceptions import RedisError

from conventions.cli.base import app_of, emit, say
from conventions.core.errors import ConventionError, ScheduleError
from conventions.core.time_units import moment_ahead
from conventions.pauses.pause_actions import PausedAgain
from conventions.schedules.schedule import Schedule
from conventions.schedules.schedule_actions import JustRun, ScheduleActions, StillRuns
from conventions.schedules.schedule_module import load_schedule
from conventions.schedules.schedule_summary import ScheduleSummary, summaries_of

NAME = click.argument("name")


class Listed:
    """The schedules of the command's application.

    Raises:
        ConfigurationError: the tasks or the schedule cannot be loaded.
    """

    def __init__(self, context: click.Context) -> None:
        self._context = context
        self.app = app_of(context)
        self.app.loader.import_default_modules()
        self._entries = {entry.name: entry for entry in load_schedule(self.app)}
        if not self._entries and self.app.schedule_address is None:
            say(f"there is no beat_schedule.py in {Path.cwd()}, so there is no schedule here", err=True)
        self.zone = ZoneInfo(self.app.settings.timezone)
        self.actions = ScheduleActions(self.app, self.zone)

    def find(self, name: str) -> Schedule:
        """The schedule of this name. Ends the command with status 1 when there is none."""
        if name not in self._entries:
            say(f"there is no schedule {name}; there are: {', '.join(self._entries) or 'none'}", err=True)
            self._context.exit(1)
        return self._entries[name]

    def summaries(self) -> list[ScheduleSummary]:
        """The present state of all schedules, in the order of the file."""
        return summaries_of(self.app, self._entries.values())

    def summary(self, name: str) -> ScheduleSummary:
        """The present state of one schedule. Ends the command with status 1 when there is none of this name."""
        (found,) = summaries_of(self.app, [self.find(name)])
        return found


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Add the schedule's name to an error of its calendar or of a function of its arguments. Raises: ScheduleError."""
    try:
        yield
    except (ConventionError, RedisError, StillRuns, JustRun, PausedAgain):
        raise
    except Exception as error:  # a team's function may raise anything
        raise ScheduleError(f"{name}: {type(error).__name__}: {error}") from error


def emit_local(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    zone: ZoneInfo,
    *,
    as_json: bool,
    limit: int | None = None,
) -> None:
    """Print rows, see `emit`. People get times in the given time zone."""
    rows = list(rows)
    if not as_json:
        rows = [
            {name: on_the_wall(value) if isinstance(value, datetime) else value for name, value in row.items()}
            for row in rows
        ]
    emit(rows, columns, as_json=as_json, limit=limit)
    if rows and not as_json:
        say(f"times are those of {zone}", err=True)


def end_of_pause(text: str, now: datetime, zone: tzinfo) -> datetime:
    """When a pause ends, in UTC; see `moment_ahead`. Raises: BadParameter."""
    try:
        return moment_ahead(text, now, zone)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--until") from error


def on_the_wall(moment: datetime) -> str:
    """A time without its offset, for output that names the time zone once."""
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def local(moment: datetime | None, zone: ZoneInfo) -> datetime | None:
    """A time in the app's zone, to the second."""
    return moment and moment.astimezone(zone).replace(microsecond=0)


def seconds(value: float | None) -> float | None:
    """A duration in seconds, to the millisecond."""
    return None if value is None else round(value, 3)
