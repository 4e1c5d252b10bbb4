"""The schedules of a plain application, as text for `beat_schedule.py`: those of Celery's `beat_schedule`, and of django-celery-beat."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from celery.schedules import crontab
from celery.schedules import schedule as interval

from conventions.core.errors import ScheduleError
from conventions.schedules.cron import cron
from conventions.schedules.interval import every
from conventions.schedules.schedule import NAME, Schedule
from conventions.tasks.owners import declared_class

_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
# Celery's sets of a crontab's fields, in the order of a cron line, each with the range of all values.
_FIELDS = (
    ("minute", range(60)),
    ("hour", range(24)),
    ("day_of_month", range(1, 32)),
    ("month_of_year", range(1, 13)),
    ("day_of_week", range(7)),
)


@dataclass(frozen=True)
class OldSchedule:
    """One entry of a plain application.

    Args:
        name: as it is called there.
        task: the name of its task.
        when: Celery's schedule.
        args: positional arguments.
        kwargs: arguments by name.
        options: of its sends, such as `queue`.
        fault: why it does not run there, such as `disabled`.
    """

    name: str
    task: str
    when: Any
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""


def old_schedules(beat_schedule: Mapping[str, Any]) -> Iterator[OldSchedule]:
    """The entries of Celery's `beat_schedule`."""
    for name, entry in beat_schedule.items():
        yield OldSchedule(
            str(name),
            str(entry.get("task")),
            entry.get("schedule"),
            tuple(entry.get("args") or ()),
            dict(entry.get("kwargs") or {}),
            dict(entry.get("options") or {}),
        )


class NotMoved(Exception):  # its text is a reason
    """Why an entry cannot be written as a `Schedule` that does the same."""


def written(entries: Iterable[OldSchedule], tasks: Mapping[str, Any], zone: str, old_zone: str) -> str:
    """A module with `SCHEDULE`. An entry that cannot be moved is a comment with the reason.

    Args:
        entries: of the plain application.
        tasks: those of ours, by name.
        zone: of our schedules.
        old_zone: of the plain application's.
    """
    lines, imports, uses = [], set[str](), set[str]()
    names = set[str]()
    for one in entries:
        try:
            name = _name_of(one.name, names)
            line, task = _line(one, name, tasks, zone, old_zone)
        except NotMoved as reason:
            lines.append(f"    # {one.name!r}, {one.task}: {reason}")
            continue
        names.add(name)
        imports.add(f"from {task.__module__} import {task.__qualname__.partition('.')[0]}")
        uses.add("every" if "every(" in line else "cron")
        if one.options:
            lines.append(
                f"    # its options were {dict(one.options)!r}: a class has its queue, its priority and its limits"
            )
        lines.append(f"    {line},")
    head = ["from datetime import timedelta", ""] if "every" in uses else []
    head += [f"from conventions import {', '.join(['Schedule', *sorted(uses)])}", *sorted(imports)]
    return "\n".join([*head, "", "SCHEDULE = [", *lines, "]", ""])


def _line(one: OldSchedule, name: str, tasks: Mapping[str, Any], zone: str, old_zone: str) -> tuple[str, type[Any]]:
    """The entry as Python, and the class of its task. Raises: NotMoved."""
    if one.fault:
        raise NotMoved(one.fault)
    task: Any = tasks.get(one.task)
    if not hasattr(task, "queue_name"):
        raise NotMoved("this application has no job of this name")
    when, text = _when(one.when, zone, old_zone)
    try:
        declared, arguments = declared_class(task), task.arguments.named(one.args, one.kwargs)
        Schedule(name, when, declared, arguments)
    except (TypeError, ValueError) as error:  # also a ScheduleError
        raise NotMoved(" ".join(str(error).split())) from error
    given = f", {arguments!r}" if arguments else ""
    return f"Schedule({name!r}, {text}, {declared.__qualname__}{given})", declared


def _name_of(name: str, taken: AbstractSet[str]) -> str:
    found = name if NAME.fullmatch(name) else _NO_NAME.sub("-", name).strip("-") or "schedule"
    if found in taken:
        raise NotMoved(f"another one is called {found!r}")
    return found


def _when(when: Any, zone: str, old_zone: str) -> tuple[Any, str]:
    """Ours, and as Python. Raises: NotMoved."""
    if isinstance(when, int | float) and not isinstance(when, bool):
        when = timedelta(seconds=when)
    if isinstance(when, timedelta):
        when = interval(when)
    try:
        if isinstance(when, crontab):
            expression = _expression(when)
            its_zone = (
                old_zone if type(when) is crontab else str(when.tz)
            )  # that of django-celery-beat has a zone of its own
            if its_zone != zone:
                raise NotMoved(f"its times are those of {its_zone}, ours those of {zone} (CONVENTIONS_TIMEZONE)")
            return cron(expression), f'cron("{expression}")'
        if isinstance(when, interval):
            found = every(when.run_every)
            return found, f"every(timedelta(seconds={found.seconds}))"
    except ScheduleError as error:
        raise NotMoved(str(error)) from error
    raise NotMoved(f"{when!r} is neither a crontab nor an interval")


def _expression(when: crontab) -> str:
    sets = [frozenset(getattr(when, name)) for name, _ in _FIELDS]
    texts = [_field(found, every_value) for found, (_, every_value) in zip(sets, _FIELDS, strict=True)]
    if texts[2] != "*" and texts[4] != "*":
        raise NotMoved(
            "it has a day of the month and of the week, and wants both; in a cron either may match: write only=..."
        )
    return " ".join(texts)


def _field(values: AbstractSet[int], all_values: range) -> str:
    """A field with exactly these values: a star, a step, or a list with ranges."""
    if values == set(all_values):
        return "*"
    ordered = sorted(values)
    if len(ordered) > 2 and ordered == [*all_values[:: ordered[1] - ordered[0]]]:
        return f"*/{ordered[1] - ordered[0]}"
    parts: list[list[int]] = []
    for value in ordered:
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ",".join(_range(part) for part in parts)


def _range(values: Sequence[int]) -> str:
    if len(values) < 3:
        return ",".join(map(str, values))
    return f"{values[0]}-{values[-1]}"
