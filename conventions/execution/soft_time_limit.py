"""`soft_limit`: a soft time limit ends a job's own code, and nothing after it: what records its outcome is not interrupted (protocol 4).

The pool sends a signal, whose handler raises `SoftTimeLimitExceeded` wherever the process is just then. While the outcome of a
job is being recorded that would count its success as a failure, and its effect would happen again.
"""

import os
import signal
import threading
from types import CodeType, FrameType
from typing import Any

from conventions.library_internals.billiard import soft_limit_handler
from conventions.library_internals.celery import running_tasks


class SoftLimit:
    """The handler of one process of a pool.

    Attributes:
        over: the request whose job's own code has ended.
        process: in which the handler is installed, or not needed.
    """

    def __init__(self) -> None:
        self.over: Any = None
        self.process = 0
        self._between: set[CodeType] = set()
        self._raise: Any = None  # the pool's handler

    def ends_in(self, code: CodeType) -> None:
        """Name a function that calls jobs' own code, and sets `over` as soon as that has ended."""
        self._between.add(code)

    def install(self) -> None:
        """Take the place of the pool's handler, where it has one."""
        if threading.current_thread() is threading.main_thread():
            self.process, celerys = os.getpid(), soft_limit_handler()
            if signal.getsignal(signal.SIGUSR1) is celerys:
                self._raise = celerys
                signal.signal(signal.SIGUSR1, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        current = running_tasks.top
        if self.over is not None and (current is None or current.request is self.over):
            return  # its outcome is being recorded, or what follows it is being sent
        if frame is not None and frame.f_code in self._between:
            return  # its code has ended in this very moment
        if self._raise is not None:
            self._raise(number, frame)


soft_limit = SoftLimit()
