"""`celery -A <app> db`: the SQL schema."""

import click
from celery.bin.base import CeleryCommand

from conventions.cli.base import app_of, one_line_errors, say
from conventions.declare.team_migrations import foreign_migrations_of
from conventions.library_internals.celery import cwd_in_path


@click.group()
def db() -> None:
    """Create and migrate the SQL tables."""


@db.command(cls=CeleryCommand)
@click.pass_context
@one_line_errors
def upgrade(context: click.Context) -> None:
    """Create or migrate every table; does nothing when up to date. Migrations of Django, and other Alembic environments, are left alone."""
    app = app_of(context)
    database = app.database
    with cwd_in_path():
        foreign = [one for package in app.packages for one in foreign_migrations_of(package)]
    database.upgrade()
    for folder, reason in foreign:
        say(f"left alone: {folder}: {reason}")
    say(f"up to date: {database.url.render_as_string(hide_password=True)}")
