"""`celery -A <app> cancel ID`: keep a message from running."""

import click
from celery.bin.base import CeleryCommand

from conventions.cli.base import app_of, one_line_errors


@click.command(cls=CeleryCommand)
@click.argument("id")
@click.pass_context
@one_line_errors
def cancel(context: click.Context, id: str) -> None:  # noqa: A002  # the word of the glossary
    """Keep the message ID from running; one that runs already goes on."""
    app_of(context).claims.cancel(id)
    click.echo(f"{id} will not be started")
