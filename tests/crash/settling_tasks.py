"""Jobs with a plain effect whose outcome is recorded late, and jobs that keep all threads of their process from running."""

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import before_task_publish

from conventions import ImmediateTask, LongRunningTask, RetryPolicy

# Seconds. A busy machine may need some of them between the begin of a job and what the test does then.
SOFT, HARD = 5.0, 6.0
SOON = RetryPolicy(first_wait=0.1, max_wait=0.3)


def note(name: str, line: object) -> None:
    """Append a line to a file of the worker's folder, by one write."""
    with Path(name).open("a") as lines:
        lines.write(f"{line}\n")


class Together(ImmediateTask):
    """Have an effect; the first one of them waits for the file `down` before."""

    waiting: ClassVar[int] = 1

    idempotent_on = ("number",)
    retry_policy = SOON
    soft_time_limit = SOFT
    time_limit = HARD

    def run(self, number: int) -> None:
        note("began", number)
        while number < self.waiting and not Path("down").exists():
            time.sleep(0.02)
        note("effects", number)


class Alone(Together):
    """The same, each by itself; several wait."""

    idempotent_on = ("number",)
    waiting = 4
    fast_lane = False


class Fail(Alone):
    """The same, and fail then, once."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        super().run(number)
        if self.attempt == 1:
            raise ConnectionError("once")


class Overtime(ImmediateTask):
    """Take longer than the soft limit allows."""

    idempotent_on = ("number",)
    retry_policy = RetryPolicy(attempts=1)
    soft_time_limit = 0.5
    time_limit = 20

    def run(self, number: int) -> None:
        note("began", number)
        time.sleep(15)


class Endless(ImmediateTask):
    """Have an effect, and end at the hard limit alone."""

    idempotent_on = ("number",)
    soft_time_limit = SOFT
    time_limit = HARD

    def run(self, number: int) -> None:
        note("began", number)
        while True:
            with suppress(SoftTimeLimitExceeded):
                time.sleep(60)


class KeepGil(LongRunningTask):
    """Let no other thread of the process run for so many seconds, and have an effect."""

    idempotent_on = ("seconds",)

    def run(self, seconds: int) -> None:
        note("began", seconds)
        ctypes.PyDLL(None).sleep(seconds)  # such a call keeps the lock of the interpreter
        note("effects", seconds)


class End(ImmediateTask):
    """End the process of the pool, each time: by a signal, or with a status."""

    idempotent_on = ("how",)

    def run(self, how: str) -> None:
        if how == "signal":
            os.kill(os.getpid(), signal.SIGSEGV)
        os._exit(7)


class Then(ImmediateTask):
    """Have an effect, after another job."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        note("effects", number)


@before_task_publish.connect
def _stand_still_once(sender: str | None = None, **_: object) -> None:
    """Before what follows a job is sent, where a test asks for that."""
    stuck = Path("stuck")
    if sender == Then.name and stuck.exists():
        stuck.unlink()
        time.sleep(60)
