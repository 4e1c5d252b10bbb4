"""`celery -A <app> up`: the whole platform in one terminal, for daily work."""

import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click
from celery.bin.base import CeleryCommand, CeleryOption

from conventions.app import ConventionsApp
from conventions.cli.base import app_of
from conventions.cli.stack_services import Plan, app_address, flower_port_for, launcher_is_gone, running
from conventions.core import extras
from conventions.stack.folder import FOLDER, hold
from conventions.stack.supervisor import StopSignals, Supervisor

COLORS = {"worker": "green", "beat": "yellow", "flower": "magenta", "valkey": "red", "up": "cyan"}
NAME_WIDTH = max(map(len, COLORS))


class Screen:
    """Prints the output of all services, with the service's name before each line."""

    def __init__(self, color: bool | None) -> None:
        self.closed = False
        self._color = color
        self._lock = threading.Lock()

    def write(self, service: str, line: str) -> None:
        """Print one line. If nobody reads the output any more, only `closed` becomes true."""
        prefix = click.style(f"{service:<{NAME_WIDTH}} |", fg=COLORS.get(service))
        with self._lock:
            try:
                click.echo(f"{prefix} {line}", color=self._color)
            except OSError:
                self.closed = True


@click.command(cls=CeleryCommand)
@click.option("--port", type=click.IntRange(1, 65535), cls=CeleryOption, help="Port of Flower (default: a free one).")
@click.option("--concurrency", type=click.IntRange(1), cls=CeleryOption, help="Jobs that run at once (default: 5).")
@click.option("--no-flower", is_flag=True, cls=CeleryOption, help="Do without Flower.")
@click.option("--no-reload", is_flag=True, cls=CeleryOption, help="Leave the worker alone when a file changes.")
@click.pass_context
def up(context: click.Context, port: int | None, concurrency: int | None, no_flower: bool, no_reload: bool) -> None:
    """Run worker, beat and Flower, with a server of our own when no broker is configured.

    Ctrl-C lets the running jobs finish; a second one gives them back to the queue. Changed source files
    restart the worker.
    """
    app = app_of(context)
    screen = Screen(color=False if context.obj.no_color else None)
    plan = Plan(
        address=app_address(context),
        concurrency=concurrency or app.settings.concurrency,
        flower_port=None if no_flower else flower_port_for(port),
    )
    orphaned = launcher_is_gone()
    with StopSignals() as signals, hold() as held:
        _introduce(app, plan, screen, wants_flower=not no_flower)
        with running(app, plan, held, screen.write, lambda: signals.count) as supervisor:
            with nullcontext() if no_reload else _reloading(app, _Reload(supervisor, screen), screen):
                supervisor.run(until=lambda: signals.count > 0 or screen.closed or orphaned())
            screen.write("up", "stopping")


class _Reload:
    """Restarts the worker, beat and Flower when a file has changed."""

    def __init__(self, supervisor: Supervisor, screen: Screen) -> None:
        self._supervisor = supervisor
        self._screen = screen

    def changed(self, files: set[Path]) -> None:
        """Reload after a change of files."""
        names = ", ".join(sorted(file.name for file in files))
        self._screen.write("up", f"changed: {names}; new worker, beat and Flower, the old worker finishes its jobs")
        self._supervisor.reload("worker", "beat", "flower")

    def failed(self, error: Exception) -> None:
        """Report that files cannot be watched, and go on."""
        self._screen.write("up", f"changed files are not noticed: {error}")


def _reloading(app: ConventionsApp, reload: _Reload, screen: Screen) -> AbstractContextManager[None]:
    if not extras.is_installed("watchfiles"):
        screen.write("up", f"changed files are not noticed: {extras.how_to_install('watchfiles')}")
        return nullcontext()
    from conventions.cli.reload import sources, watching  # noqa: PLC0415  # it needs that package

    return watching(sources(app.packages, app.schedule_address), reload.changed, reload.failed)


def _introduce(app: ConventionsApp, plan: Plan, screen: Screen, *, wants_flower: bool) -> None:
    embedded = app.settings.broker_url is None
    lines = [
        f"broker     {f'embedded Valkey, socket and data in {FOLDER}' if embedded else 'as configured'}",
        f"database   {app.database.engine.url.render_as_string(hide_password=True)}",
        *([f"Flower     {plan.flower_url or extras.how_to_install('flower')}"] if wants_flower else []),
        f"worker     {plan.concurrency} jobs at once, times in {app.settings.timezone}",
        "send       YourTask.delay(...) in any program that runs in this folder,",
        f"           or celery -A {plan.address} call NAME --kwargs '{{...}}'",
        "stop       Ctrl-C",
    ]
    for line in lines:
        screen.write("up", line)
