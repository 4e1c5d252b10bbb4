"""Huey on Redis, with worker processes."""

import os

from huey import RedisHuey

from bench.program import URL, Program, go_on_as
from bench.records import record

huey = RedisHuey("bench", url=os.environ[URL], results=False)


@huey.task()
def noop(number: int, sent: float, sleep: float = 0) -> None:
    """Write one record."""
    record(number, sent, sleep)


def work(concurrency: int, pool: str) -> None:  # noqa: ARG001  # it is compared with its processes
    """Run its command until SIGTERM."""
    options = ("--workers", str(concurrency), "--worker-type", "process", "--quiet")
    go_on_as("huey.bin.huey_consumer", f"{__name__}.huey", *options)


def program(url: str) -> Program:  # noqa: ARG001  # its command imports this module, too, and reads the variable
    """The program of this system."""
    return Program(send=noop, work=work)
