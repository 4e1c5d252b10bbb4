"""Tasks that end badly in every way that is known, and a good one, for workers that must outlive them."""

import ctypes
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from conventions import EVERY_ARGUMENT, ImmediateTask, RetryPolicy

NAME = __name__
QUEUE = "immediate"


class Good(ImmediateTask):
    """Return a number."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: str) -> str:
        return number


class Unpicklable(Exception):
    """Needs an argument that it does not hand on."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self.second = second
        self.lock = threading.Lock()


class Irreducible(Exception):
    """Refuses to be pickled."""

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle of me")


class Speechless(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text of me")

    __repr__ = __str__


class Slippery(BaseException):
    """Is no `Exception`."""


class Bad(ImmediateTask):
    """Count the start in a file, then end badly."""

    idempotent_on = ("folder", "how")
    retry_policy = RetryPolicy(attempts=1)

    def run(self, folder: Path, how: str) -> Any:
        with (folder / how).open("a") as lines:
            lines.write(f"{os.getpid()}\n")
        return getattr(self, how)()

    def memory(self) -> None:
        raise MemoryError("of 1 GiB")

    def exit_hard(self) -> None:
        os._exit(3)

    def exit_clean(self) -> None:
        os._exit(0)

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fault(self) -> None:
        ctypes.string_at(0)

    def exit_system(self) -> None:
        raise SystemExit(3)

    def exit_killed(self) -> None:
        raise SystemExit(-247)  # as billiard ends a process that is killed

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def generator_exit(self) -> None:
        raise GeneratorExit

    def slippery(self) -> None:
        raise Slippery("base")

    def recursion(self) -> None:
        self.recursion()

    def unpicklable(self) -> None:
        raise Unpicklable("one", "two")

    def irreducible(self) -> None:
        raise Irreducible("three")

    def speechless(self) -> None:
        raise Speechless("four")

    def odd_text(self) -> None:
        raise ValueError("nul \0 half \udc80 " + "x" * 200_000)

    def unserializable(self) -> Any:
        return object()

    def infinite(self) -> Any:
        return float("inf")

    def circular(self) -> Any:
        result: list[Any] = []
        result.append(result)
        return result

    def group(self) -> None:
        raise ExceptionGroup("several", [ValueError("one"), OSError("two")])

    def stop(self) -> None:
        raise StopIteration("five")

    def reject(self) -> None:
        raise Reject("not wanted", requeue=False)

    def reject_error(self) -> None:
        raise Reject(ValueError("the reason"), requeue=False)

    def requeue(self) -> None:
        raise Reject("not now", requeue=True)

    def ignore(self) -> None:
        raise Ignore("never mind")


class Slow(ImmediateTask):
    """Count the start in a file, then go on after its limits."""

    idempotent_on = ("folder", "how")
    soft_time_limit = 1
    time_limit = 2

    def run(self, folder: Path, how: str) -> None:
        with (folder / how).open("a") as lines:
            lines.write(f"{os.getpid()}\n")
        if how == "deaf":
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        while True:
            try:
                time.sleep(60)
            except SoftTimeLimitExceeded:
                continue
