"""`celery -A <app> demo`: the same stack as `up`, then the app's own scenario on real input, then a table."""

import importlib
import os
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Self, TextIO

import click
from celery.bin.base import CeleryCommand, CeleryOption
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conventions.app import ConventionsApp
from conventions.cli.base import app_of
from conventions.cli.stack_services import Plan, app_address, flower_port_for, launcher_is_gone, running
from conventions.core import extras
from conventions.core.errors import ConfigurationError, ConventionError
from conventions.core.printable_text import printable
from conventions.demo import Outcome
from conventions.library_internals.celery import cwd_in_path
from conventions.stack.folder import FOLDER, hold
from conventions.stack.supervisor import StopSignals, Supervisor

LOGS = FOLDER / "logs"
READY_SECONDS = 30.0
INTERRUPTED = 130  # the exit status of a shell after Ctrl-C


@click.command(cls=CeleryCommand)
@click.option("--exit", "leave", is_flag=True, cls=CeleryOption, help="End with the table: 0 as expected, 1 if not.")
@click.option("--port", type=click.IntRange(1, 65535), cls=CeleryOption, help="Port of Flower (default: a free one).")
@click.pass_context
def demo(context: click.Context, leave: bool, port: int | None) -> None:
    """Show the platform at work: start all of it, send real jobs, and count what became of them.

    It stays up until Ctrl-C, unless --exit is given. Ends with status 1 when a job is not as expected.
    """
    with cwd_in_path():
        status = _run(context, app_of(context), leave=leave, port=port)
    context.exit(status)


def _run(context: click.Context, app: ConventionsApp, *, leave: bool, port: int | None) -> int:
    console = Console(no_color=context.obj.no_color or None)
    module = _demo_module(app)
    flower_port = flower_port_for(port)
    orphaned = launcher_is_gone()
    with StopSignals() as signals, hold() as held, _environment(module, app), LogFolder() as logs:
        plan = Plan(app_address(context), app.settings.concurrency, flower_port)
        console.print("Starting the services ...")
        with running(app, plan, held, logs.write, lambda: signals.count) as supervisor, _watched(supervisor):
            status = _play(app, module, console, signals, logs)
            if status == 0 and (broken := _broken(plan, supervisor)):
                console.print(
                    f"[red]Not as expected:[/] {escape(', '.join(broken))}. The logs are in {LOGS}.", highlight=False
                )
                status = 1
            if not leave and status != INTERRUPTED:
                flower = plan.flower_url or extras.how_to_install("flower")
                console.print(f"Flower {flower}   logs in {LOGS}   Ctrl-C to stop", highlight=False)
                while not signals.count and not orphaned():
                    time.sleep(0.05)
    return status


class LogFolder:
    """A new log file for each service under `.conventions/logs`, so that the screen stays readable."""

    def __init__(self, folder: Path = LOGS) -> None:
        self._folder = folder
        self._files: dict[str, TextIO] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in self._folder.glob("*.log"):
            old.unlink()
        return self

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    def write(self, service: str, line: str) -> None:
        """Add a line to the service's file."""
        with self._lock:
            if service not in self._files:
                self._files[service] = (self._folder / f"{service}.log").open("w", encoding="utf-8", buffering=1)
            self._files[service].write(line + "\n")


def _demo_module(app: ConventionsApp) -> ModuleType:
    names = [f"{package}.demo" for package in app.packages if _is_package(package)]
    for name in names:
        if find_spec(name):
            module = importlib.import_module(name)
            if not callable(getattr(module, "scenario", None)):
                raise ConfigurationError([f"{name} has no function scenario(app, console, folder)"])
            return module
    raise ConfigurationError([f"this app has no demo: there is no module {' or '.join(names) or 'demo'}"])


def _is_package(name: str) -> bool:
    spec = find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


@contextmanager
def _environment(module: ModuleType, app: ConventionsApp) -> Iterator[None]:
    prepare: AbstractContextManager[Mapping[str, str]] = (
        module.environment(FOLDER) if hasattr(module, "environment") else nullcontext({})
    )
    with prepare as variables:
        before = dict(os.environ)
        os.environ.update(variables)
        for name in (
            "settings",
            "timings",
        ):  # they were read to find this module; read them again, with its environment
            app.__dict__.pop(name, None)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def _watched(supervisor: Supervisor) -> Iterator[None]:
    done = threading.Event()
    watcher = threading.Thread(target=supervisor.run, args=(done.is_set,), daemon=True, name="supervisor")
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _play(app: ConventionsApp, module: ModuleType, console: Console, signals: StopSignals, logs: LogFolder) -> int:
    """Run the scenario and show its results. Returns the exit status."""
    signals.raising = True
    try:
        if signals.count:
            return INTERRUPTED
        _wait_for_worker(app)
        outcomes = list(module.scenario(app, console, FOLDER))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever a scenario raises, the services are stopped in order
        for line in traceback.format_exception(error):
            logs.write("demo", line.rstrip())
        console.print(
            f"[red]The demo failed:[/] {type(error).__name__}: {escape(printable(str(error)))}", highlight=False
        )
        console.print(f"More is in {LOGS / 'demo.log'} and the other logs there.", highlight=False)
        return 1
    finally:
        signals.raising = False
    _show(console, outcomes)
    wrong = [outcome.job for outcome in outcomes if not outcome.ok]
    if wrong:
        console.print(f"[red]Not as expected:[/] {escape(', '.join(wrong))}. The logs are in {LOGS}.", highlight=False)
    return 1 if wrong or not outcomes else 0


def _wait_for_worker(app: ConventionsApp) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if app.control.ping(timeout=0.2):
            return
    raise ConventionError(f"no worker answers after {READY_SECONDS:g} s")


def _broken(plan: Plan, supervisor: Supervisor) -> list[str]:
    deadline = time.monotonic() + READY_SECONDS
    while not (answers := plan.flower_answers()) and time.monotonic() < deadline:
        time.sleep(0.05)
    died = [f"{service.name} ended by itself" for service in supervisor.services if service.deaths]
    return died + ([] if answers else ["Flower does not answer"])


def _show(console: Console, outcomes: Sequence[Outcome]) -> None:
    table = Table("job", title="What happened")
    for heading in ("sent", "done", "failed", "seconds", "jobs/s"):
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        failed = f"{outcome.failed} (expected)" if outcome.failed and outcome.ok else str(outcome.failed)
        table.add_row(
            escape(outcome.job),
            f"{outcome.sent:,}",
            f"{outcome.done:,}",
            failed,
            f"{outcome.seconds:.1f}",
            f"{outcome.rate:.1f}",
            style=None if outcome.ok else "red",
        )
    console.print(table)
