"""How a process ends that a job has forked."""

import io
import os
import signal
import sys
import threading
import warnings

import pytest

from conventions.core.forks import end_forked
from tests.support import wait_until


class Slow(io.RawIOBase):
    """A file whose writer stands still, with the lock of its buffer."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.begun.set()
        self.go_on.wait()
        return len(bytes(data))  # type: ignore[call-overload]  # of any buffer


def test_another_thread_was_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a worker with threads writes its log: the lock is held in the forked process for good, and it ends all the same."""
    slow = Slow()
    stream = io.TextIOWrapper(io.BufferedWriter(slow), write_through=True)

    def write() -> None:
        stream.write("a line")
        stream.flush()

    thread = threading.Thread(target=write)
    thread.start()
    slow.begun.wait()
    monkeypatch.setattr(sys, "stdout", stream)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # threads run: that is what is tried
        child = os.fork()
    if child == 0:
        end_forked(None)
    status: list[int] = []

    def has_ended() -> bool:
        pid, how = os.waitpid(child, os.WNOHANG)
        status.extend([how] if pid else [])
        return bool(status)

    try:
        wait_until(has_ended, 20, "it has ended")
        assert status == [0]
    finally:
        if not status:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        slow.go_on.set()
        thread.join()
