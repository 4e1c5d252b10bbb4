"""`celery -A <app> permissions`: which roles actors have, and which permissions roles have (R20)."""

from collections.abc import Callable
from typing import Any

import click
from celery.bin.base import CeleryCommand
from sqlalchemy.orm import Session

from conventions.app import ConventionsApp
from conventions.cli.actor_option import actor_option
from conventions.cli.base import app_of, emit, existing, one_line_errors, print_json, say
from conventions.cli.shared_options import JSON, REASON
from conventions.core.error_text import first_line
from conventions.core.errors import PermissionDenied
from conventions.core.settings import SQL_AUTHORIZER
from conventions.permission import roles
from conventions.permission.decisions import NoAnswer
from conventions.permission.question import Question

COLUMNS = ("role", "permissions", "actors")
ASKED = "by `permissions ask`"  # in place of a task


def changes(function: Callable[..., Any]) -> Callable[..., Any]:
    """What each command has that changes something."""
    return REASON(actor_option(click.pass_context(one_line_errors(function))))


@click.group()
def permissions() -> None:
    """Say which roles actors have, and which permissions roles have. Workers follow within 5 seconds."""


@permissions.command(cls=CeleryCommand)
@click.argument("role")
@click.argument("permission")
@changes
def grant(context: click.Context, *, role: str, permission: str, reason: str | None, actor: str) -> None:
    """Give a permission to a role. `*` stands for every permission."""
    _change(context, lambda session: roles.grant(session, role, permission, actor, reason), f"{role} has {permission}")


@permissions.command(cls=CeleryCommand)
@click.argument("role")
@click.argument("permission")
@changes
def revoke(context: click.Context, *, role: str, permission: str, reason: str | None, actor: str) -> None:
    """Take a permission from a role."""
    _change(
        context, lambda session: roles.revoke(session, role, permission, actor, reason), f"{role} has not {permission}"
    )


@permissions.command(cls=CeleryCommand)
@click.argument("name")
@click.argument("role")
@changes
def assign(context: click.Context, *, name: str, role: str, reason: str | None, actor: str) -> None:
    """Give a role to an actor: a user id, the login of who redrives, `system`, `beat`."""
    _change(context, lambda session: roles.assign(session, name, role, actor, reason), f"{name} has the role {role}")


@permissions.command(cls=CeleryCommand)
@click.argument("name")
@click.argument("role")
@changes
def unassign(context: click.Context, *, name: str, role: str, reason: str | None, actor: str) -> None:
    """Take a role from an actor."""
    _change(
        context, lambda session: roles.unassign(session, name, role, actor, reason), f"{name} has not the role {role}"
    )


@permissions.command("list", cls=CeleryCommand)
@click.option("--of", "name", metavar="ACTOR", help="Only the roles of this actor.")
@JSON
@click.pass_context
@one_line_errors
def list_roles(context: click.Context, name: str | None, as_json: bool) -> None:
    """List the roles, with their permissions and their actors."""
    app = app_of(context)
    with existing(app.database).session(read_only=True) as session:
        found = roles.listing(session, name)
    rows: list[dict[str, Any]] = [
        {"role": one.name, "permissions": list(one.permissions), "actors": list(one.actors)} for one in found
    ]
    if not as_json:
        rows = [{"role": row["role"], **{name: ", ".join(row[name]) for name in COLUMNS[1:]}} for row in rows]
    emit(rows, COLUMNS, as_json=as_json)
    _say_who_answers(app)


@permissions.command(cls=CeleryCommand)
@click.argument("name")
@click.argument("permission")
@JSON
@click.pass_context
@one_line_errors
def ask(context: click.Context, name: str, permission: str, as_json: bool) -> None:
    """Ask, as a worker does, whether an actor has a permission. Status 1: not, or nobody can say so."""
    app = app_of(context)
    why = ""
    try:
        app.permissions.check([name], Question(permission, ASKED, {}))
    except PermissionDenied:
        why = f"{name} has not {permission}"
    except NoAnswer as error:
        why = f"nobody can say whether {name} has {permission}: {first_line(error.cause)}"
    if as_json:
        print_json({"actor": name, "permission": permission, "allowed": not why, "why": why or None})
    else:
        say(why or f"{name} has {permission}")
    if why:
        context.exit(1)


def _change(context: click.Context, change: Callable[[Session], bool], done: str) -> None:
    app = app_of(context)
    try:
        with existing(app.database).session() as session:
            changed = change(session)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    say(done if changed else f"{done}; nothing has changed")
    _say_who_answers(app)


def _say_who_answers(app: ConventionsApp) -> None:
    if app.settings.authorizer != SQL_AUTHORIZER:
        say(
            f"CONVENTIONS_AUTHORIZER is {app.settings.authorizer}: whether it looks at these roles, it says itself",
            err=True,
        )
