"""Taskiq with the list broker of taskiq-redis."""

import asyncio
import os
from typing import Any

from taskiq_redis import ListQueueBroker

from bench.program import URL, Program, go_on_as
from bench.records import record

AT_ONCE = 20

broker = ListQueueBroker(os.environ[URL])


@broker.task
async def noop(number: int, sent: float, sleep: float = 0) -> None:
    """Write one record."""
    if sleep:
        await asyncio.sleep(sleep)
    record(number, sent)


def work(concurrency: int, pool: str) -> None:  # noqa: ARG001  # it has no pools
    """Run its command until SIGTERM."""
    limits = ("--workers", str(concurrency), "--max-async-tasks", str(AT_ONCE))
    go_on_as("taskiq", "worker", f"{__name__}:broker", *limits, "--log-level", "WARNING")


def program(url: str) -> Program:  # noqa: ARG001  # its command imports this module, too, and reads the variable
    """The program of this system."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(broker.startup())

    def send(**arguments: Any) -> None:
        loop.run_until_complete(noop.kiq(**arguments))

    return Program(send=send, work=work)
