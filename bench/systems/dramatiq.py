"""Dramatiq, with its Redis broker and its own defaults."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.program import URL, Program, go_on_as
from bench.records import record

THREADS = 4

broker = RedisBroker(url=os.environ[URL])
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(number: int, sent: float, sleep: float = 0) -> None:
    """Write one record."""
    record(number, sent, sleep)


def work(concurrency: int, pool: str) -> None:  # noqa: ARG001  # it has no pools
    """Run its command until SIGTERM."""
    go_on_as("dramatiq", f"{__name__}:broker", "--processes", str(concurrency), "--threads", str(THREADS))


def program(url: str) -> Program:  # noqa: ARG001  # its command imports this module, too, and reads the variable
    """The program of this system."""
    return Program(send=noop.send, work=work)
