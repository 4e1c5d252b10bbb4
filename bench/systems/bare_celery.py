"""What the programs of bare Celery share, and how any Celery worker is started here."""

import os
import socket
import sys
from typing import Any

from celery import Celery

from bench.program import Program
from bench.records import record


def bare_celery(url: str, **settings: Any) -> Program:
    """A program on a plain `Celery(...)` with these settings.

    Raises:
        RuntimeError: this process has imported `conventions`, whose `create_app` replaces kombu's transports.
    """
    app = Celery("bench", broker=url)
    app.conf.update(settings)

    @app.task(name="bench.noop")
    def noop(number: int, sent: float, sleep: float = 0) -> None:
        record(number, sent, sleep)

    def work(concurrency: int, pool: str) -> None:
        run_worker(app, concurrency, pool)

    with app.connection_for_write() as connection:
        if not type(connection.transport).__module__.startswith("kombu.") or "conventions" in sys.modules:
            raise RuntimeError("this is not bare Celery: conventions was imported into its process")
    return Program(send=noop.delay, work=work)


def run_worker(app: Celery, concurrency: int, pool: str, **options: Any) -> None:
    """Run a worker until SIGTERM, under a name of its own: in the crash two run at the same time.

    Started without the `celery` command, which would import every installed sub-command, and so `conventions`.
    """
    name = f"bench{os.getpid()}@{socket.gethostname()}"
    app.Worker(hostname=name, concurrency=concurrency, pool_cls=pool, loglevel="WARNING", **options).start()
