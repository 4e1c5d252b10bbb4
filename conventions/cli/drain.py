"""`celery -A <app> drain QUEUE`: move what waits in a queue of plain Celery into ours."""

from collections.abc import Mapping

import click
from amqp.exceptions import AMQPError  # type: ignore[import-untyped]  # py-amqp has no types
from celery.bin.base import CeleryCommand
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from conventions.adoption.drain import drain as move
from conventions.adoption.drain import kinds, old_queue
from conventions.adoption.unfinished_drains import note_end
from conventions.cli.actor_option import actor_option
from conventions.cli.base import app_of, one_line_errors, say
from conventions.core.errors import BrokerUnavailable, ConfigurationError
from conventions.core.printable_text import printable
from conventions.core.redis_address import shown
from conventions.core.redis_answers import fault_of
from conventions.records.audit_entry import AuditEntry

TOLD_EVERY = 1000  # messages
MOST_TOLD = 5  # ways by which messages were sent


@click.command(cls=CeleryCommand)
@click.argument("queue")
@click.option("--from", "address", required=True, help="Address of its broker, as Celery writes it.")
@click.option("--prefix", default="", help="Its `global_keyprefix`, where it has one.")
@click.option("--count", "only_count", is_flag=True, help="Count, and move nothing.")
@click.option("--force", "-f", is_flag=True, help="Do not ask.")
@actor_option
@click.pass_context
@one_line_errors
def drain(
    context: click.Context, *, queue: str, address: str, prefix: str, only_count: bool, force: bool, actor: str
) -> None:
    """Move what waits in QUEUE of plain Celery into the queues of this application's tasks, by the names of the tasks.

    Messages of tasks that this application does not know stay where they are, as do those that are no JSON. Old workers may run meanwhile.
    A drain that was killed is finished by the next one.
    """
    app = app_of(context)
    app.loader.import_default_modules()
    try:
        source = old_queue(app, address, queue, prefix)
    except ValueError as error:
        raise ConfigurationError([f"--from: {error}"]) from error
    try:
        count, found = source.count(), kinds(app, source)
        say(f"{source.place}: {count:,} messages")
        for (task, what), number in sorted((found or {}).items()):
            say(
                f"  {number:,} of {printable(task) or 'no task'}: {what if what.startswith('to ') else f'stay: {what}'}"
            )
        _tell_of_held(source.held(), queue)
        if only_count:
            return
        if not count:
            note_end(app.store, source.place)  # what a killed drain had left is gone
            return
        if not force:
            click.confirm("Move those of this application?", abort=True)
        drained = move(app, source, _tell)
    except BrokerUnavailable:  # ours; the one below is of the old broker
        raise
    except RedisError as error:
        raise ConfigurationError([f"{shown(address)}: {fault_of(error)}"]) from error
    except (AMQPError, OperationalError, OSError) as error:
        raise ConfigurationError([f"{shown(address)}: {error}"]) from error
    app.journal.note(
        AuditEntry(
            actor, "drain", queue, None, {"messages": count}, {"moved": drained.moved, "left": dict(drained.left)}
        )
    )
    say(f"Moved {drained.moved:,}, left {sum(drained.left.values()):,}.")
    for reason, number in sorted(drained.left.items()):
        say(f"  {number:,}: {reason}")


def _tell_of_held(held: Mapping[str, int], queue: str) -> None:
    """What is in no queue: a drain cannot move it."""
    if number := held.get(queue):
        say(
            f"  {number:,} more are held by workers of before. They run there, or come back here: those of a worker that was killed when its "
            "visibility_timeout is over (an hour, unless you have set it) and another old worker runs. Drain again then."
        )
    if others := sorted((what, number) for what, number in held.items() if what != queue):
        told = "; ".join(f"{number:,} by {printable(what)}" for what, number in others[:MOST_TOLD])
        say(
            f"  Held by workers in this Redis, of this queue or of others: {told}{'; ...' if others[MOST_TOLD:] else ''}."
        )


def _tell(moved: int, left: int) -> None:
    if (moved + left) % TOLD_EVERY == 0:
        say(f"  {moved:,} moved, {left:,} left", err=True)
