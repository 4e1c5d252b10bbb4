"""The items of a batch, as JSON, a chunk at a time."""

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, to_jsonable_python

from conventions.core.chunking import chunked
from conventions.core.errors import BusinessError, PayloadError
from conventions.declare.payload import encode, refuse_unordered

AFTER = "after"  # the argument of `items` that is given the last item
SAID_EVERY = 0.01  # seconds: to say for each item that the job goes on would take as long as to cut them


class Chunk(NamedTuple):
    """Some items, and the same as canonical JSON."""

    items: list[Any]
    written: bytes

    def digest(self, before: str) -> str:
        """Of this chunk and all before it, whose digest is given."""
        return hashlib.sha256(before.encode() + self.written).hexdigest()[:32]


class Items:
    """Reads a task's items, and says as they come that the job goes on.

    Args:
        task: the batch's task.
        arguments: those of its `items`.
        after: the last item that was cut, for a task that goes on from there.

    Raises:
        BusinessError: `items` gave nothing to iterate over.
    """

    def __init__(self, task: Any, arguments: Mapping[str, Any], after: Any = None) -> None:
        self._task = task
        found = task.items(**arguments, **({AFTER: after} if task.resumes_by_item else {}))
        if not isinstance(found, Iterable):
            raise BusinessError(f"{task.name}: items must yield items, or return an iterable, not {found!r}")
        self._source = iter(found)

    def chunks(self) -> Iterator[Chunk]:
        """Cut them. Raises: PayloadError for an item that is no JSON."""
        return map(_written, chunked(self._reported(), self._task.chunk_size))

    def close(self) -> None:
        """Let a generator end now, with what it holds open: it may be kept alive by a traceback."""
        close = getattr(self._source, "close", None)
        if close is not None:
            close()

    def _reported(self) -> Iterator[Any]:
        said = -math.inf
        for item in self._source:
            if (now := time.monotonic()) - said >= SAID_EVERY:
                self._task.report_alive()
                said = now
            yield item


def _written(chunk: list[Any]) -> Chunk:
    try:
        refuse_unordered(chunk)
        items = list(to_jsonable_python(chunk))
        return Chunk(items, encode(items))
    except (PydanticSerializationError, ValueError) as error:
        raise PayloadError(
            f"an item of a batch cannot be written as JSON ({error}); yield ids, or JSON values"
        ) from None
