"""The rules for a class of a batch, checked when its module is imported: its methods, and the bounds of its chunks.

Those for each task, of a batch or not, are in `declare/class_rules.py`.
"""

import inspect
from typing import Any, Protocol

from conventions.batches.chunks_of_items import AFTER
from conventions.core.errors import DeclarationError


class BatchClass(Protocol):
    """A class of a batch, as the rules see it."""

    def items(self, *args: Any, **kwargs: Any) -> Any:
        """Yields the items."""

    def process(self, *args: Any, **kwargs: Any) -> Any:
        """Does the work of one chunk."""


def check_batch(cls: type[BatchClass], base: type[BatchClass]) -> None:
    """Raises: DeclarationError. `base` has the methods as nobody has written them yet."""
    for name, sample in (("items", "def items(self, path: str) -> Iterable[dict]: ..."),
                         ("process", "def process(self, chunk: list, path: str) -> None: ...")):  # fmt: skip
        if getattr(cls, name) is getattr(base, name):
            raise DeclarationError(f"{cls.__qualname__}: a batch defines items and process; write {sample}")
    names = [name for name in inspect.signature(cls.items).parameters if name not in ("self", AFTER)]
    for method, first in (("process", ["chunk"]), ("finish", ["summary"]), ("recovered", ["summary"]), ("count", [])):
        try:
            inspect.signature(getattr(cls, method)).bind(cls, *first, **dict.fromkeys(names))
        except TypeError as error:
            raise DeclarationError(
                f"{cls.__qualname__}: {method} must take the arguments of items ({error}); "
                f"write def {method}({', '.join(['self', *first, *names])})"
            ) from None
    if "run" in cls.__dict__:
        raise DeclarationError(f"{cls.__qualname__}: a batch has no run; its work is items and process")
    for name in ("chunk_size", "chunks_per_turn"):
        if type(value := getattr(cls, name)) is not int or value < 1:
            raise DeclarationError(f"{cls.__qualname__}: {name} must be at least 1, not {value!r}")
