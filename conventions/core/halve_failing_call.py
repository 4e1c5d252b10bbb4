"""`apart`: one call for many items, in which a bad item does not spoil the good ones."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from conventions.core.outage import is_outage

T = TypeVar("T")
R = TypeVar("R")


def apart(call: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R | Exception]:
    """The answer of `call` for each item, in order. For an item with which the call fails even alone, the error.

    Without a fault there is one call for all items. After a fault each half is called by itself, and so on. So `call` must be safe
    to repeat.

    Raises:
        RedisError, OSError: the server does not answer, or answers nobody. The items are not at fault.
    """
    try:
        return list(call(items))
    except Exception as error:
        if not items or is_outage(error):
            raise
        if len(items) == 1:
            return [error]
        half = len(items) // 2
        return [*apart(call, items[:half]), *apart(call, items[half:])]
