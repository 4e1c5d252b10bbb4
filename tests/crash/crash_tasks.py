"""Jobs with an effect that is written down, for workers that are killed meanwhile.

Each writes what happens to it into `runs.log` in the worker's folder, one line by one write, so that the lines of a
process that was killed are there. See `evidence.py`, which reads them.
"""

import os
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import text

from conventions import ImmediateTask, RetryPolicy

SOON = RetryPolicy(attempts=5, first_wait=0.1, max_wait=0.3)


class Job(ImmediateTask, abstract=True):
    """One that can say what happens to it."""

    idempotent_on: ClassVar[Any] = ("number",)
    retry_policy = SOON

    def note(self, what: str, number: int) -> None:
        where = f"{os.getpid()} {threading.get_native_id()} {os.getppid()}"
        line = f"{what} {number} {self.job.id} {self.attempt} {where} {time.monotonic():.4f}\n"
        file = os.open("runs.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)


class Commit(Job):
    """Insert a row in the transaction that records the effect; nothing but that keeps it from being there twice."""

    def run(self, number: int, seconds: float) -> None:
        self.note("started", number)
        time.sleep(seconds / 2)
        with self.transaction() as session:
            session.execute(text("INSERT INTO effects (number) VALUES (:number)"), {"number": number})
        time.sleep(seconds / 2)
        self.note("ended", number)


class Append(Job):
    """Write a line, outside of any transaction, in the middle of the run."""

    def run(self, number: int, seconds: float) -> None:
        self.note("started", number)
        time.sleep(seconds / 2)
        self.note("effect", number)
        time.sleep(seconds / 2)
        self.note("ended", number)


class AppendAtSecond(Job):
    """Fail once; write a line in the second attempt."""

    def run(self, number: int, seconds: float) -> None:
        self.note("started", number)
        time.sleep(seconds / 2)
        if self.attempt == 1:
            self.note("ended", number)
            raise RuntimeError("the first attempt fails")
        self.note("effect", number)
        time.sleep(seconds / 2)
        self.note("ended", number)


class Hold(Job):
    """Say that it started, and end when the file `go` is there."""

    def run(self, number: int) -> None:
        self.note("started", number)
        while not Path("go").exists():  # no event loop here
            time.sleep(0.02)
        self.note("effect", number)
        self.note("ended", number)


class HoldCommit(Job):
    """The same, and then insert a row in the transaction that records the effect."""

    def run(self, number: int) -> None:
        self.note("started", number)
        while not Path("go").exists():  # no event loop here
            time.sleep(0.02)
        with self.transaction() as session:
            session.execute(text("INSERT INTO effects (number) VALUES (:number)"), {"number": number})
        self.note("ended", number)


class Trivial(ImmediateTask):
    """Nothing, one at a time: together, a hundred thousand are done before a test is."""

    not_idempotent = "it does nothing"
    fast_lane = False

    def run(self) -> None:
        """Do nothing."""


class Idle(ImmediateTask):
    """The same, in a queue that nobody consumes."""

    not_idempotent = "it does nothing"
    queue_name = "nobody"

    def run(self) -> None:
        """Do nothing."""
