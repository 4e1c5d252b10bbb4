"""The services of a stack: what `up` and `demo` share."""

import itertools
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from conventions.app import ConventionsApp
from conventions.core import extras
from conventions.core.errors import ConfigurationError
from conventions.stack.embedded import EmbeddedServer, prepare
from conventions.stack.folder import Stack, StackLock
from conventions.stack.supervisor import Service, Supervisor, Write, guardian

HOST = "127.0.0.1"
FLOWER_DELAY = 2.0


@dataclass(frozen=True)
class Plan:
    """What to run.

    Args:
        address: the app, as `celery -A` takes it.
        concurrency: jobs that the worker runs at once.
        flower_port: None: no Flower.
    """

    address: str
    concurrency: int
    flower_port: int | None

    @property
    def flower_url(self) -> str | None:
        """The address of Flower for people."""
        return None if self.flower_port is None else f"http://{HOST}:{self.flower_port}"

    def flower_answers(self) -> bool:
        """Whether Flower is up; true when it is not wanted."""
        if self.flower_port is None:
            return True
        with socket.socket() as client:
            return client.connect_ex((HOST, self.flower_port)) == 0

    def services(self) -> list[Service]:
        """Worker, beat and Flower."""
        numbers = itertools.count(1)

        def worker() -> list[str]:
            # Each start uses a new name: two workers of one name confuse each other's remote control.
            name = f"worker{next(numbers)}.{os.getpid()}@%h"
            return self._celery("worker", "-n", name, "-c", str(self.concurrency), "--loglevel", "INFO")

        services = [
            Service("worker", worker, stop_within=None, overlaps=True),
            Service("beat", lambda: self._celery("beat", "--loglevel", "INFO")),
        ]
        if self.flower_port is not None:
            flower = self._celery("flower", f"--address={HOST}", f"--port={self.flower_port}")
            services.append(Service("flower", lambda: flower, stop_phase=1))
        return services

    def _celery(self, *command: str) -> list[str]:
        return [sys.executable, "-m", "celery", "-A", self.address, "--quiet", *command]


def app_address(context: click.Context) -> str:
    """The app as the user wrote it after `celery -A`."""
    assert context.parent is not None  # noqa: S101 - narrows the type: a sub-command has a parent
    return str(context.parent.params["app"])


def free_port(wanted: int | None = None) -> int:
    """A free port of the loopback interface: the wanted one, or any.

    Raises:
        ConfigurationError: the wanted one is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted or 0))
        except OSError as error:
            raise ConfigurationError([f"port {wanted} cannot be used: {error.strerror}"]) from error
        port: int = probe.getsockname()[1]
        return port


def flower_port_for(wanted: int | None) -> int | None:
    """The port that Flower gets, or `None` where it is not installed.

    Raises:
        UsageError: a port is wanted for a Flower that is not installed.
        ConfigurationError: the wanted port is taken.
    """
    if extras.is_installed("flower"):
        return free_port(wanted)
    if wanted is not None:
        raise click.UsageError(f"--port: {extras.how_to_install('flower')}")
    return None


@contextmanager
def running(
    app: ConventionsApp, plan: Plan, held: StackLock, write: Write, signals: Callable[[], int]
) -> Iterator[Supervisor]:
    """Run the stack within the block; the caller lets the supervisor watch over it.

    Args:
        held: the folder to run in.
        write: takes the lines of the services.
        signals: how often the user asked to stop.

    Raises:
        ConfigurationError: the settings cannot work.
        ClickException: the embedded server does not start.
    """
    with guardian(held.fileno) as group:
        supervisor = Supervisor(group, write)
        try:
            if app.settings.broker_url is None:
                _start_server(supervisor, prepare(held.folder), held, plan, signals)
            app.database.upgrade()
            for service in plan.services():
                # Flower asks the workers when it starts, and a starting worker needs the CPU.
                supervisor.start(service, delay=FLOWER_DELAY if service.name == "flower" else 0)
            yield supervisor
        finally:
            supervisor.stop(signals)


def _start_server(
    supervisor: Supervisor, server: EmbeddedServer, held: StackLock, plan: Plan, signals: Callable[[], int]
) -> None:
    service = Service("valkey", lambda: server.command, stop_phase=2, stop_within=10)
    # Publish before the start, so that the next stack finds the socket's folder even after a kill -9.
    held.publish(
        Stack(
            pid=os.getpid(),
            broker_url=server.broker_url,
            redis_url=server.redis_url,
            flower_url=plan.flower_url,
            socket=str(server.socket),
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    )
    supervisor.start(service)
    if not server.wait_until_ready(lambda: service.alive and not signals()):
        if signals():
            raise click.exceptions.Exit(0)
        if service.process is not None:
            service.process.finish_lines()
        raise click.ClickException(f"the embedded Valkey does not start; its log: {server.data / 'valkey.log'}")


def launcher_is_gone() -> Callable[[], bool]:
    """A function that tells whether `uv run`, which started this process, was killed.

    `uv run` stays between the shell and us. A kill -9 of the process that the user started must end us, too.
    """
    parent = os.getppid()
    try:
        by_uv = Path(f"/proc/{parent}/comm").read_text(encoding="utf-8").strip() == "uv"
    except OSError:  # not Linux: look at uv's own variable
        by_uv = not Path("/proc").exists() and "UV_RUN_RECURSION_DEPTH" in os.environ
    return lambda: by_uv and os.getppid() != parent
