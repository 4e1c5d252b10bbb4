"""What `celery -A <app> pause` and `resume` share: what a name means, and which workers follow."""

from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import click

from conventions.app import ConventionsApp
from conventions.cli.base import print_json, say
from conventions.now.pause_targets import NoTarget, followers_of
from conventions.pauses.pause_actions import Change
from conventions.pauses.pause_store import Kind, Target


def zone_of(app: ConventionsApp) -> ZoneInfo:
    """The time zone of the settings."""
    return ZoneInfo(app.settings.timezone)


def named(find: Callable[[ConventionsApp, Kind, str], Target], app: ConventionsApp, kind: Kind, name: str) -> Target:
    """What a name means. Raises: click.BadParameter, with those that there are."""
    try:
        return find(app, kind, name)
    except NoTarget as error:
        there = ", ".join(error.known) or "none"
        raise click.BadParameter(f"{error}; there are: {there}", param_hint="NAME") from None


def hear(app: ConventionsApp, target: Target, change: Change, row: dict[str, Any], *, as_json: bool) -> list[str]:
    """Say which workers follow. Returns those that have not said so."""
    count, late = followers_of(app, target, change.revision)
    if as_json:
        print_json(row | {"follow": count, "do_not_follow": late})
        return late
    if count or not late:
        say("no worker runs" if not count else "1 worker follows" if count == 1 else f"{count} workers follow")
    for name in late:
        say(f"{name} has not said that it follows: it stands still, or its release knows no pauses", err=True)
    return late
