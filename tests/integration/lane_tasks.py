"""Short jobs for the tests of the fast lane: each notes where it ran, and what it saw of its message."""

import json
import logging
import os
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded

from conventions import ImmediateTask, LongRunningTask, RetryPolicy
from conventions.fast_lane.outcome_stream import OutcomeStream
from tests.lanes import outcomes_of, waiting_behind

_numbers = count()
_groups: WeakKeyDictionary[OutcomeStream, int] = WeakKeyDictionary()


def note(task: Any, folder: Path, name: str) -> None:
    """Append a line in one write."""
    outcomes = outcomes_of(task)
    line = {
        "name": name,
        "group": None if outcomes is None else f"{os.getpid()}.{_groups.setdefault(outcomes, next(_numbers))}",
        "behind": waiting_behind(task),
        "pid": os.getpid(),
        "at": time.time(),
        "id": task.job.id,
        "attempt": task.attempt,
        "actor": task.actor,
        "key": task.idempotency_key,
    }
    file = os.open(folder / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{json.dumps(line)}\n".encode())
    finally:
        os.close(file)


def hold(folder: Path, *, is_deaf: bool) -> None:
    """Go on until there is a file, or for most of a minute."""
    until = time.monotonic() + 50  # below the soft limit
    while not (folder / "go").exists() and time.monotonic() < until:
        try:
            time.sleep(0.02)
        except SoftTimeLimitExceeded:
            if not is_deaf:
                raise


def fork(file: Path, how: str) -> None:
    """Fork, wait for the child, and let it leave the job as it is asked to."""
    if child := os.fork():
        os.waitpid(child, 0)
    elif how == "forks and exits":
        sys.exit(0)
    elif how == "forks and fails":
        logging.getLogger("conventions.core.forks").addHandler(Broken())
        raise ValueError("in the child")
    elif how == "forks and writes":
        opened = file.open("w")
        opened.write("all of it")
        sys.exit(0)


class Broken(logging.Handler):
    """A handler that cannot do its work."""

    def emit(self, record: logging.LogRecord) -> None:
        """Raise."""
        raise OSError(f"the log is away: {record.levelname}")


class Quick(ImmediateTask):
    """Note the run, and end as it is asked to."""

    idempotent_on = ("folder", "name")
    retry_policy = RetryPolicy(attempts=1, first_wait=0.05, max_wait=0.1)

    def run(self, folder: Path, name: str, how: str = "") -> Any:
        note(self, folder, name)
        if how == "reports":
            self.progress.total = 100
            self.progress.advance(int(name))
        elif how == "fails":
            raise ValueError("for good")
        elif how == "network" and self.attempt == 1:
            raise ConnectionError("not now")
        elif how == "object":
            return object()
        elif how.startswith("forks"):
            fork(folder / f"{name} wrote", how)
        elif how in ("held", "deaf"):
            hold(folder, is_deaf=how == "deaf")
        return name


class Limited(Quick):
    """The same, within two seconds."""

    idempotent_on = ("folder", "name")
    soft_time_limit = 1
    time_limit = 2


class Apart(Quick):
    """The same, of which each goes to a process by itself."""

    idempotent_on = ("folder", "name")
    fast_lane = False


class Kept(Quick):
    """The same, whose result somebody reads."""

    idempotent_on = ("folder", "name")
    ignore_result = False


class Lengthy(LongRunningTask):
    """Takes until there is a file, or for most of a minute."""

    idempotent_on = ("folder", "name")

    def run(self, folder: Path, name: str) -> None:
        note(self, folder, name)
        hold(folder, is_deaf=False)


class Nap(LongRunningTask):
    """Takes a third of a second."""

    idempotent_on = ("folder", "name")

    def run(self, folder: Path, name: str) -> None:
        note(self, folder, name)
        time.sleep(0.3)


@shared_task
def function(folder: str, name: str = "", how: str = "") -> None:
    """As a team has it from before."""
    with (Path(folder) / "functions").open("a", encoding="utf-8") as file:
        file.write(f"{name}\n")
    if how == "exits":
        sys.exit(3)
    hold(Path(folder), is_deaf=False)
