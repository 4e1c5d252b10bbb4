"""The actor: who causes a message. Every message that the running code sends inherits its actor."""

from contextlib import ContextDecorator
from contextvars import ContextVar

from conventions.core.value_bounds import fault_of_name

SYSTEM = "system"
BEAT = "beat"
UNSIGNED = "unsigned"  # of a message that nobody has signed; it may do nothing that needs a permission

_actor: ContextVar[str | None] = ContextVar("conventions_actor", default=None)
_editor: ContextVar[str | None] = ContextVar("conventions_editor", default=None)


def current_actor() -> str:
    """The actor of the running code: a user id, `beat`, or `system`."""
    return _actor.get() or SYSTEM


def named_actor() -> str | None:
    """The same; `None`: nobody has named one."""
    return _actor.get()


def current_editor() -> str | None:
    """Who has edited, as a dead letter, the job that runs, or one before it; `None`: nobody."""
    return _editor.get()


class resuming(ContextDecorator):  # noqa: N801  # used like a function
    """Run the block in the name of a message's actor, and of who has edited it. It checks nothing: they were checked when the message arrived."""

    def __init__(self, actor: str, editor: str | None = None) -> None:
        self._actor, self._editor = actor, editor

    def __enter__(self) -> None:
        """Set them."""
        self._token = _actor.set(self._actor)
        self._editor_token = None if self._editor is None else _editor.set(self._editor)

    def __exit__(self, *_: object) -> None:
        """Restore those of the code around the block."""
        _actor.reset(self._token)
        if self._editor_token is not None:
            _editor.reset(self._editor_token)


class acting_as(resuming):  # noqa: N801  # used like a function
    """Send every message of the block in the name of this actor.

    Raises:
        TypeError: the actor is not text.
        ValueError: the actor is empty, has more than 255 characters, or is a text that cannot be stored.
    """

    def __init__(self, actor: str) -> None:
        if not isinstance(actor, str):
            raise TypeError(f"acting_as: the actor is text, not {type(actor).__name__}; write acting_as(str(...))")
        if not actor:
            raise ValueError('acting_as: the actor is empty; pass a user id such as "u-42"')
        if fault := fault_of_name(actor):
            raise ValueError(f"acting_as: the actor {fault}")
        super().__init__(actor)
