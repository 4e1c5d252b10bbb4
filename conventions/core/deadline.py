"""`Deadline`: when everything that one call asks of a server has to be over, with all tries of all the layers below.

Whoever makes the call sets it for the running thread; connections look at it before each wait (`storage/redis_connections.py`), and
whatever tries again looks at it before each try. So time-outs of several layers do not add up.
"""

import time
from contextvars import ContextVar, Token
from typing import Self


class Deadline:
    """A block that has to be over at a moment; within another one, at the earlier of both.

    Args:
        seconds: from now.
        once: whoever sets it tries again by itself, so that nothing below it does.

    Attributes:
        at: the moment, in seconds of the monotonic clock.
        may_have_left: whether a message was handed over whole, and no answer came: nobody knows whether the server has it.
    """

    __slots__ = ("_token", "at", "may_have_left", "once")

    def __init__(self, seconds: float, *, once: bool = True) -> None:
        self.at = time.monotonic() + seconds
        self.once = once
        self.may_have_left = False
        self._token: Token[Deadline | None] | None = None

    @property
    def left(self) -> float:
        """Seconds until then; below zero when it has passed."""
        return self.at - time.monotonic()

    def __enter__(self) -> Self:
        """Begin the block."""
        outer = _current.get()
        if outer is not None and outer.at < self.at:
            self.at = outer.at
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        """End the block."""
        if self._token is not None:
            _current.reset(self._token)


_current: ContextVar[Deadline | None] = ContextVar("conventions_deadline", default=None)
current_deadline = _current.get
