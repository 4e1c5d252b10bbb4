"""How a process ends that a job has forked."""

import io
import os
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
    ended: list[int] = []

    def has_ended() -> bool:
        pid, status = os.waitpid(child, os.WNOHANG)
        ended.append(status)
        return pid == child

    try:
        wait_until(has_ended, 20, "it has ended")
        assert ended[-1] == 0
    finally:
        slow.go_on.set()
        thread.join()
        monkeypatch.undo()
