"""The sub-commands as Celery loads them: a name and one line each. A command's module is imported when it is used.

`celery` imports every entry point at each start, even for a worker.
"""

import importlib
from typing import Any

import click

from conventions.core import extras
from conventions.core.errors import ConfigurationError


class Lazy(click.Command):
    """Stands for the command of the same name in `conventions.cli` until that is used."""

    def __init__(self, name: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help)
        self._attribute = name.replace("-", "_")

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        """Pass the call to the real command."""
        module = importlib.import_module(f"{__package__}.{self._attribute}")
        command: click.Command = getattr(module, self._attribute)
        return command.make_context(info_name, args, parent=parent, **extra)


class _NotInstalled(click.Command):
    """Stands for the command of a package that is not there. Celery would say that there is no such command."""

    def __init__(self, extra: extras.Extra) -> None:
        super().__init__(extra, hidden=True)
        self._extra = extra

    def make_context(self, *_arguments: Any, **_more: Any) -> click.Context:
        """Raises: ConfigurationError: with what installs it."""
        raise ConfigurationError([extras.how_to_install(self._extra)])


def __getattr__(name: str) -> click.Command:
    """Flower's own command, which is the same whoever adds it; or what says that it is missing."""
    if name != "flower":
        raise AttributeError(name)
    if not extras.is_installed("flower"):
        return _NotInstalled("flower")
    from flower.command import flower  # noqa: PLC0415  # only where it is installed

    command: click.Command = flower
    return command


up = Lazy("up", "Run worker, beat and Flower, with a server of our own when no broker is configured.")
demo = Lazy("demo", "Show the platform at work, with real jobs.")
db = Lazy("db", "Create and migrate the SQL tables.")
dead_letters = Lazy("dead-letters", "Find, show, edit, redrive and discard dead letters.")
batch = Lazy("batch", "Watch and stop batches.")
schedule = Lazy("schedule", "Show and change when tasks run.")
explain = Lazy("explain", "Show what would happen after an error, and when.")
cancel = Lazy("cancel", "Keep a message from running.")
job = Lazy("job", "Show what became of a job.")
jobs = Lazy("jobs", "List jobs that run, wait, or have ended.")
metrics = Lazy("metrics", "Show what the jobs of each task did, and serve metrics for Prometheus.")
alerts = Lazy("alerts", "Show what is wrong and who was told; test and silence alerts.")
now = Lazy("now", "Show how things stand: what is wrong, queues, failures, workers.")
keys = Lazy("keys", "Make, list and retire keys of messages; hold what a stolen one has signed.")
permissions = Lazy("permissions", "Say which roles actors have, and which permissions roles have.")
messages = Lazy("messages", "List messages that wait; cancel some of them, or move them.")
pause = Lazy("pause", "Let workers begin nothing of a queue, of a task, or at one worker.")
resume = Lazy("resume", "End a pause of a queue, a task or a worker.")
audit = Lazy("audit", "Show who ran what, and who did what, why.")
lost = Lazy("lost", "List jobs whose messages disappeared from Redis.")
drain = Lazy("drain", "Move what waits in a queue of plain Celery into ours.")
leave = Lazy("leave", "Delete every key and queue of this application, and with --tables our tables.")
check = Lazy("check", "Look whether this application could run here.")
