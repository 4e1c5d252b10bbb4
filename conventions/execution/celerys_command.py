"""A command of Celery's own, with something of ours around it.

Celery adds its own commands after those of packages, so one of the same name would not be found.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import click

Around: TypeAlias = Callable[[Any, Callable[[], Any], dict[str, Any]], Any]
"""Called with the application, what runs Celery's command, and its options."""


def put_around(command: Any, around: Around) -> None:
    """Run `around` in place of a command; it may run the command itself. `command`: `None` where it cannot run in this process. A second call replaces the first."""
    if command is None:
        return
    original = getattr(command.callback, "of_celery", command.callback)

    @functools.wraps(original)
    def ours(*args: Any, **options: Any) -> Any:
        return around(click.get_current_context().obj.app, functools.partial(original, *args, **options), options)

    ours.of_celery = original  # type: ignore[attr-defined]  # for an application that is made after this one
    command.callback = ours
