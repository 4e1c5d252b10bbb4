"""Tasks for tests with RabbitMQ and two Redis: each leaves a line in the current folder when it begins and when it ends."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from conventions import EVERY_ARGUMENT, BatchTask, ImmediateTask, LongRunningTask, RetryPolicy, ScheduledTask


class Note(ImmediateTask):
    """Write a number."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        write("note", number)


class Pauses(ImmediateTask):
    """Write a number after a while, in which RabbitMQ can send the next message."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        time.sleep(0.05)
        write("note", number)


class Fails(ImmediateTask):
    """Fail so many times, and then write its attempt."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(attempts=3, first_wait=1, max_wait=1, jitter=0)

    def run(self, number: int, times: int) -> None:
        write("tries", number)
        if self.job.attempt <= times:
            raise ValueError(f"attempt {self.job.attempt}")
        write("note", number)


class Kept(ImmediateTask):
    """Write a number, and return it."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: int) -> int:
        write("note", number)
        return number


class Slot(ScheduledTask):
    """Write a number, for a slot of a schedule."""

    def run(self, number: int) -> None:
        write("note", number)


class Steps(ImmediateTask):
    """Write a number, as a step after another job."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, previous: Any, number: int) -> None:  # noqa: ARG002
        write("note", number)


class Holds(ImmediateTask):
    """Run until the file `go` is there."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        hold(number)


class HoldsLong(LongRunningTask):
    """The same, in the queue of long jobs."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        hold(number)


class Limited(ImmediateTask):
    """Write a number, once a minute."""

    idempotent_on = EVERY_ARGUMENT
    rate_limit = "1/m"

    def run(self, number: int) -> None:
        write("limited", number)


class Deadly(ImmediateTask):
    """End the process that it runs in."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        write("begun", number)
        os.kill(os.getpid(), signal.SIGKILL)


class Deaf(ImmediateTask):
    """Go on beyond its limits."""

    idempotent_on = EVERY_ARGUMENT
    soft_time_limit = 1.9
    time_limit = 2

    def run(self, number: int) -> None:
        write("begun", number)
        while True:
            with suppress(SoftTimeLimitExceeded):
                time.sleep(60)


class Items(BatchTask):
    """Write the numbers of a batch."""

    idempotent_on = EVERY_ARGUMENT
    chunk_size = 3

    def items(self, count: int) -> Any:
        return range(count)

    def process(self, chunk: list[int], count: int) -> None:  # noqa: ARG002
        for item in chunk:
            write("note", item)

    def finish(self, summary: Any, count: int) -> None:  # noqa: ARG002
        write("finish", summary.done)


def hold(number: int) -> None:
    """Write that a job has begun, wait, and write its number."""
    write("begun", number)
    while not Path("go").exists():
        time.sleep(0.01)
    write("note", number)


def write(kind: str, number: int) -> None:
    """Add a line to the evidence."""
    with Path(kind).open("ab", buffering=0) as file:
        file.write(f"{number} {os.getpid()}\n".encode())
