"""`Deadline`: the time by which one call must end, with all retries of all layers below it.

The caller sets it for the running thread. Connections look at it before each wait (`storage/redis_connections.py`), and every
retry looks at it first. So the time-outs of several layers do not add up.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Self


class Deadline:
    """A block that must end by a given time. Inside another `Deadline`, the earlier one holds.

    Args:
        seconds: from now.
        once: the caller retries by itself, so no layer below it retries.

    Attributes:
        at: when the block must end, in seconds of the monotonic clock.
        may_have_left: whether a whole message was handed to the network without an answer. The server may have it or not.
    """

    __slots__ = ("_outer", "_token", "at", "may_have_left", "once")

    def __init__(self, seconds: float, *, once: bool = True) -> None:
        self.at = time.monotonic() + seconds
        self.once = once
        self.may_have_left = False
        self._token: Token[Deadline | None] | None = None
        self._outer: Deadline | None = None

    @property
    def left(self) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return self.at - time.monotonic()

    def __enter__(self) -> Self:
        """Begin the block."""
        self._outer = outer = _current.get()
        if outer is not None and outer.at < self.at:
            self.at = outer.at
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        """End the block."""
        if self._token is not None:
            _current.reset(self._token)

    @contextmanager
    def own_work(self) -> Iterator[None]:
        """A part of the block in which the caller does its own work, which takes no time from the deadline.

        Waits within it have deadlines of their own, and that of the block around this one.
        """
        left, token = self.left, _current.set(self._outer)
        try:
            yield
        finally:
            _current.reset(token)
            self.at = time.monotonic() + left
            if self._outer is not None:
                self.at = min(self.at, self._outer.at)


_current: ContextVar[Deadline | None] = ContextVar("conventions_deadline", default=None)
current_deadline = _current.get
