"""`celery purge`, Celery's own command, with every queue that there is."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
from redis.exceptions import RedisError

from conventions.core.errors import ConfigurationError, PurgeStopped
from conventions.core.near_names import did_you_mean
from conventions.core.printable_text import printable
from conventions.core.redis_answers import fault_of
from conventions.execution.application import Application
from conventions.execution.celerys_command import put_around
from conventions.library_internals.celery import purge_command


def prepare_purge() -> None:
    """Let `celery purge` know every queue, where that command may run in this process."""
    put_around(purge_command(), _purge_of_any)


def _purge_of_any(app: Any, run: Callable[[], Any], options: dict[str, Any]) -> Any:
    if not hasattr(type(app), "port") or not app.port.can.looks:  # of another program, or of another broker
        return run()
    return _purge(app, options["force"], options["queues"], options["exclude_queues"])


def _purge(app: Application, force: bool, queues: Sequence[str] | None, excluded: Sequence[str] | None) -> None:
    from conventions.execution.purge_queues import (  # noqa: PLC0415  # whoever only sends needs none of it
        is_reply_queue,
        known_queues,
        purge,
    )

    app.loader.import_default_modules()  # queues that tasks have of their own
    try:
        known = known_queues(app)
        wanted = [name for name in queues or () if not is_reply_queue(name)]
        for option, given in (("-X", excluded or ()), ("-Q", wanted)):  # of -X what was to be kept would go
            if unknown := sorted(set(given) - set(known)):
                near = did_you_mean(unknown[0], known) if len(unknown) == 1 else ""
                raise ConfigurationError(
                    [
                        f"{option}: there is no queue {_listed(unknown)}{near}; nothing was purged; there are {_listed(known)}"
                    ]
                )
        names = sorted(set(queues or known) - set(excluded or ()))
        if not names:
            click.echo("No queue is left to purge.")
            return
        if not force:
            sizes = {name: app.broker.sizes(name) for name in names}
            lines = [f"  {name}: {one.ready:,} ready, {one.delayed:,} delayed" for name, one in sizes.items()]
            click.echo("\n".join(["This removes what waits in these queues, delayed messages too:", *lines]))
            click.echo("Each message leaves a row that says so; there is no undo.")
            click.confirm("Purge them?", abort=True)
        removed = purge(app, names)
        running = sum(app.broker.sizes(name).in_flight for name in names)
    except RedisError as error:
        raise ConfigurationError([fault_of(error)]) from error
    except PurgeStopped as error:
        raise ConfigurationError([str(error)]) from error
    count, total = len(names), sum(removed.values())
    click.echo(f"Purged {total:,} message{'s' * (total != 1)} from {count} known task queue{'s' * (count != 1)}.")
    if running:
        click.echo(f"{running:,} in the hands of workers were left.")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(printable(name) for name in sorted(names))
