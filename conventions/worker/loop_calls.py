"""`LoopCalls`: other threads call in the thread of the worker's loop, which a socket wakes."""

import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from celery import bootsteps


class LoopCalls:
    """What other threads ask the loop of this process to do."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        self._bell: tuple[socket.socket, socket.socket] | None = None
        self._thread = 0  # the loop's
        self._hub: Any = None

    def in_loop(self, call: Callable[[], None]) -> None:
        """Call from the thread of the loop: at once when this is the one, or where there is no loop; else soon."""
        if self._bell is None or threading.get_ident() == self._thread:
            call()
            return
        self._calls.append(call)
        with suppress(BlockingIOError):  # it is full of calls, so it will be read
            self._bell[1].send(b"1")

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call so many seconds later, from the thread of the loop; where there is no loop, from another one.

        What a lost connection has to do with is forgotten with it.
        """
        if self._hub is not None:
            self.in_loop(partial(self._hub.call_later, seconds, call))
        else:
            timer = threading.Timer(seconds, call)
            timer.daemon = True
            timer.start()

    def register_with_event_loop(self, hub: Any) -> None:
        """Let other threads wake this loop, called from its thread."""
        self._hub = hub
        self._thread = threading.get_ident()
        if self._bell is None:
            self._bell = socket.socketpair()
            for end in self._bell:
                end.setblocking(False)
        hub.add_reader(self._bell[0], self._on_bell)

    def _on_bell(self) -> None:
        assert self._bell is not None  # noqa: S101  # registered only then
        with suppress(BlockingIOError):
            self._bell[0].recv(4096)
        self.run()

    def run(self) -> None:
        """Do what other threads have asked for."""
        while self._calls:
            self._calls.popleft()()


class LoopCallsStep(bootsteps.StartStopStep):
    """Lets the worker's loop do what other threads ask for: a step of Celery's worker."""

    requires = ("celery.worker.components:Hub",)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Give the calls this loop."""
        worker.app.loop_calls.register_with_event_loop(hub)
