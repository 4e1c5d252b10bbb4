"""`celery -A <app> leave`: take an application out of Redis, RabbitMQ and SQL."""

import click
from celery.bin.base import CeleryCommand

from conventions.adoption.leave import leave as take_out
from conventions.adoption.leave import still_here
from conventions.cli.base import app_of, existing, one_line_errors, say
from conventions.core.errors import ConfigurationError
from conventions.core.redis_address import shown


@click.command(cls=CeleryCommand)
@click.option("--force", "-f", is_flag=True, help="Also where something runs, waits or is dead; do not ask.")
@click.pass_context
@one_line_errors
def leave(context: click.Context, force: bool) -> None:
    """Delete every key, queue and table of this application: the end of the way back to plain Celery.

    There is no undo. It is refused where a process of the application lives, a message waits, or a letter is dead.
    """
    app = app_of(context)
    app.loader.import_default_modules()
    existing(app.database)
    say(
        f"{app.main}: broker {shown(app.broker_address)}, keys {app.store.key('*')}, database {app.database.url.render_as_string()}"
    )
    if not force:
        if found := still_here(app):
            raise ConfigurationError([*found, "stop its processes, let what waits run, settle the letters; or --force"])
        click.confirm("Delete all keys, queues and tables of it? There is no undo", abort=True)
    keys, tables = take_out(app)
    say(f"Deleted {keys:,} keys and {len(tables)} tables: {', '.join(tables) or 'none'}.")
