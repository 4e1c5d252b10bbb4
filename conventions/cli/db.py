"""`celery -A <app> db`: the SQL schema."""

import click
from celery.bin.base import CeleryCommand

from conventions.cli.base import app_of, one_line_errors, say


@click.group()
def db() -> None:
    """Create and migrate the SQL tables."""


@db.command(cls=CeleryCommand)
@click.pass_context
@one_line_errors
def upgrade(context: click.Context) -> None:
    """Create or migrate every table; does nothing when up to date."""
    database = app_of(context).database
    database.upgrade()
    say(f"up to date: {database.url.render_as_string(hide_password=True)}")
