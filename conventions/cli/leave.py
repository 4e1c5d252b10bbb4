"""`celery -A <app> leave`: take an application out of Redis, RabbitMQ and, if told, SQL."""

import click
from celery.bin.base import CeleryCommand

from conventions.adoption.leave import leave as take_out
from conventions.adoption.leave import still_here
from conventions.cli.base import app_of, existing, one_line_errors, say
from conventions.core.errors import ConfigurationError
from conventions.core.redis_address import shown
from conventions.core.settings import is_redis
from conventions.execution.purge_queues import known_queues


@click.command(cls=CeleryCommand)
@click.option("--tables", is_flag=True, help="Drop our tables, too: all applications in this database share them.")
@click.option("--queue", "-Q", "queues", multiple=True, help="A further queue in RabbitMQ, of tasks that are gone.")
@click.option("--force", "-f", is_flag=True, help="Also where something runs, waits or is dead; do not ask.")
@click.pass_context
@one_line_errors
def leave(context: click.Context, *, tables: bool, queues: tuple[str, ...], force: bool) -> None:
    """Delete every key and queue of this application: the end of the way back to plain Celery.

    There is no undo. It is refused where a process of the application lives, a message waits, or a letter is dead.
    """
    app = app_of(context)
    app.loader.import_default_modules()
    if tables or not force:
        existing(app.database)
    say(f"{app.main}: broker {shown(app.broker_address)}, keys {app.store.key('*')}")
    if tables:
        say(f"our tables in {app.database.url.render_as_string()}, of each application that has this database")
    if not is_redis(app.broker_address):
        say(f"queues: {', '.join(sorted({*known_queues(app), *queues}))}; those of tasks that are gone by -Q")
    if not force:
        if found := still_here(app, queues, tables=tables):
            raise ConfigurationError([*found, "stop its processes, let what waits run, settle the letters; or --force"])
        click.confirm("Delete all of it? There is no undo", abort=True)
    keys, dropped = take_out(app, queues, tables=tables)
    say(f"Deleted {keys:,} keys and {len(dropped)} tables{': ' if dropped else ''}{', '.join(dropped)}.")
