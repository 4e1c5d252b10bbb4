"""Who causes a message: the actor of the running code, inherited by every message it sends."""

from contextlib import ContextDecorator
from contextvars import ContextVar

from conventions.core.bounds import fault_of_name

SYSTEM = "system"
BEAT = "beat"

_actor: ContextVar[str] = ContextVar("conventions_actor", default=SYSTEM)


def current_actor() -> str:
    """The actor of the running code: a user id, `beat`, or `system`."""
    return _actor.get()


class resuming(ContextDecorator):  # noqa: N801  # used like a function
    """As `acting_as`, for the actor of a message, which was checked when the message came."""

    def __init__(self, actor: str) -> None:
        self._actor = actor

    def __enter__(self) -> None:
        """Begin."""
        self._token = _actor.set(self._actor)

    def __exit__(self, *_: object) -> None:
        """End."""
        _actor.reset(self._token)


class acting_as(resuming):  # noqa: N801  # the same
    """Send everything within the block in the name of this actor.

    Raises:
        TypeError: the actor is no text.
        ValueError: the actor is empty, has more than 255 characters, or is no text that can be stored.
    """

    def __init__(self, actor: str) -> None:
        if not isinstance(actor, str):
            raise TypeError(f"acting_as: the actor is text, not {type(actor).__name__}; write acting_as(str(...))")
        if not actor:
            raise ValueError('acting_as: the actor is empty; pass a user id such as "u-42"')
        if fault := fault_of_name(actor):
            raise ValueError(f"acting_as: the actor {fault}")
        super().__init__(actor)
