"""Who causes a message: the actor of the running code, inherited by every message it sends."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

SYSTEM = "system"
BEAT = "beat"

_actor: ContextVar[str] = ContextVar("conventions_actor", default=SYSTEM)


def current_actor() -> str:
    """The actor of the running code: a user id, `beat`, or `system`."""
    return _actor.get()


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Send everything within the block in the name of this actor.

    Raises:
        ValueError: the actor is empty.
    """
    if not actor:
        raise ValueError('acting_as: the actor is empty; pass a user id such as "u-42"')
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)
