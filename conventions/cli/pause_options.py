"""What `celery -A <app> pause` and `resume` share: what a name means, and which workers follow."""

from typing import Any
from zoneinfo import ZoneInfo

import click

from conventions.app import ConventionsApp
from conventions.cli.base import print_json, say
from conventions.execution.purge import known_queues
from conventions.metrics.known_series import known_names
from conventions.metrics.worker_reports import WorkerNow, WorkerReports
from conventions.pauses.actions import Change, those_that_do_not_follow
from conventions.pauses.pause_store import Kind, Target


def zone_of(app: ConventionsApp) -> ZoneInfo:
    """The time zone of the settings."""
    return ZoneInfo(app.settings.timezone)


def existing(app: ConventionsApp, kind: Kind, name: str) -> Target:
    """What a name means. Raises: click.BadParameter, with those that there are."""
    app.loader.import_default_modules()
    if kind == "task":
        name = canonical(app, name)
        known = {one for one in app.tasks if not one.startswith("celery.")}
    elif kind == "worker":
        known = {one.name for one in WorkerReports(app.store).listing()}
    else:
        known = {*known_names(app), *known_queues(app)}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise click.BadParameter(f"there is no {kind} {name}; there are: {there}", param_hint="NAME")
    return Target(kind, name)


def canonical(app: ConventionsApp, name: str) -> str:
    """The name of a task that may be called by an alias."""
    app.loader.import_default_modules()
    task = app.tasks.get(name)
    return name if task is None else str(task.name)


def hear(app: ConventionsApp, target: Target, change: Change, row: dict[str, Any], *, as_json: bool) -> list[str]:
    """Say which workers follow. Returns those that have not said so."""

    def concerned() -> list[WorkerNow]:
        alive = [one for one in WorkerReports(app.store).listing() if not one.silent]
        return [one for one in alive if target.kind != "worker" or one.name == target.name]

    late = those_that_do_not_follow(concerned, change.revision)
    count = sum(one.name not in late for one in concerned())
    if as_json:
        print_json(row | {"follow": count, "do_not_follow": late})
        return late
    if count or not late:
        say("no worker runs" if not count else "1 worker follows" if count == 1 else f"{count} workers follow")
    for name in late:
        say(f"{name} has not said that it follows: it stands still, or its release knows no pauses", err=True)
    return late
