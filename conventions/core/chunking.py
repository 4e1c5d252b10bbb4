"""`chunked`: cut an iterable into lists of a set length."""

from collections.abc import Iterable, Iterator
from itertools import batched


def chunked[T](items: Iterable[T], size: int = 100) -> Iterator[list[T]]:
    """Yield lists of `size` items, the last one shorter, without reading ahead (R19).

    >>> list(chunked("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]

    Raises:
        ValueError: `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"chunked: size must be at least 1, not {size!r}")
    return map(list, batched(items, size, strict=False))
