"""What people see of a sealed job: that it is sealed, unless somebody reveals it. `jobs/reveal.py` tells the audit (R21, R22).

Code that asks for a result, by `Job.of` or `AsyncResult`, gets it where the key is. Pages and commands show what they find to people, and the key may be there, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_closed: ContextVar[bool | None] = ContextVar("conventions_closed", default=None)
_of_process = [False]  # where nothing else is said


def close_process() -> None:
    """Keep all sealed that this process reads, but within `opened`: it shows what it reads to people, also by code of others, as Flower does."""
    _of_process[0] = True


@contextmanager
def closed() -> Iterator[None]:
    """Within, what is read for people stays sealed, but within `opened`."""
    with _set(closed=True):
        yield


@contextmanager
def opened() -> Iterator[None]:
    """Within, it is opened where the key is."""
    with _set(closed=False):
        yield


def is_closed() -> bool:
    """Whether what is read now stays sealed."""
    found = _closed.get()
    return _of_process[0] if found is None else found


@contextmanager
def _set(*, closed: bool) -> Iterator[None]:
    token = _closed.set(closed)
    try:
        yield
    finally:
        _closed.reset(token)
