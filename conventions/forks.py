"""What an object does when its process is forked."""

import os
import weakref
from collections.abc import Callable


def call_in_child(method: Callable[[], None]) -> None:
    """Call a method of an object in each process that is forked from now on, as long as the object is there."""
    found = weakref.WeakMethod(method)
    os.register_at_fork(after_in_child=lambda: (call := found()) and call())


def call_before_fork(method: Callable[[], None]) -> None:
    """The same, in the parent, before each fork."""
    found = weakref.WeakMethod(method)
    os.register_at_fork(before=lambda: (call := found()) and call())
