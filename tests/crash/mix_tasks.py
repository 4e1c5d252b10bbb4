"""Jobs that end in every way, for one queue: short and long ones, and those that kill their process."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from conventions import BusinessError, ImmediateTask, RetryPolicy
from tests.lanes import outcomes_of

RUNS = "runs"  # in the worker's folder

HOWS = ("quick", "slow", "fails", "network", "business", "object", "reports", "kills once", "kills", "ends")


class Mixed(ImmediateTask):
    """Write a line, and end as it is asked to."""

    idempotent_on = ("name",)
    retry_policy = RetryPolicy(attempts=2, first_wait=0.05, max_wait=0.1)

    def run(self, name: str, how: str) -> Any:
        note(self, name)
        if how == "slow":
            time.sleep(0.2)
        elif how == "reports":
            self.progress.total = 3
            self.progress.advance(3)
        elif how == "fails":
            raise ValueError("for good")
        elif how == "network" and self.attempt == 1:
            raise ConnectionError("not now")
        elif how == "business":
            raise BusinessError("not ever")
        elif how == "object":
            return object()
        elif how == "ends":
            raise SystemExit(3)
        elif how == "kills" or (how == "kills once" and is_first(name)):
            os.kill(os.getpid(), signal.SIGKILL)
        return name


class Brisk(Mixed):
    """The same, another task in the same groups."""

    idempotent_on = ("name",)


def note(task: ImmediateTask, name: str) -> None:
    """Write which job runs and whether it runs with others, by one write."""
    file = os.open(RUNS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{name}:{outcomes_of(task) is not None}\n".encode())
    finally:
        os.close(file)


def is_first(name: str) -> bool:
    """Whether no job of this name was killed before."""
    try:
        Path(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
