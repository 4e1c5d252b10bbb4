"""Cut an iterable into parts of a set length."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def chunked(items: Iterable[T], size: int = 100) -> Iterator[list[T]]:
    """Yield lists of `size` items, the last one shorter, without reading ahead (R19).

    >>> list(chunked("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]

    Raises:
        ValueError: `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"chunked: size must be at least 1, not {size!r}")
    return map(list, batched(items, size))


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Yield tuples of `size` items, the last one shorter, without reading ahead: `itertools.batched`, which Python 3.11 does not have."""
    rest = iter(items)
    return iter(lambda: tuple(islice(rest, size)), ())
