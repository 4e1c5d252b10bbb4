"""The chunks of a batch: its items, read one by one, cut, and written as JSON."""

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, to_jsonable_python

from conventions.batches.splittable_task import SplittableTask
from conventions.core.canonical_json import encode
from conventions.core.chunking import chunked
from conventions.core.errors import BusinessError, PayloadError
from conventions.declare.arguments_as_json import refuse_unordered

AFTER = "after"  # the argument of `items` that receives the last cut item
SAID_EVERY = 0.01  # seconds between two reports; a report for each item would cost as much as cutting


class Chunk(NamedTuple):
    """Some items, and their canonical JSON."""

    items: list[Any]
    written: bytes

    def digest(self, before: str) -> str:
        """The digest of this chunk and of all chunks before it, whose digest is `before`."""
        return hashlib.sha256(before.encode() + self.written).hexdigest()[:32]


class Items:
    """Reads a task's items, and reports meanwhile that the job goes on.

    Args:
        task: the batch's task.
        arguments: of its `items`.
        after: the last cut item, for a task that resumes after it.

    Raises:
        BusinessError: `items` returned nothing that can be iterated over.
    """

    def __init__(self, task: SplittableTask, arguments: Mapping[str, Any], after: Any = None) -> None:
        self._task = task
        found = task.items(**arguments, **({AFTER: after} if task.resumes_by_item else {}))
        if not isinstance(found, Iterable):
            raise BusinessError(f"{task.name}: items must yield items, or return an iterable, not {found!r}")
        self._source = iter(found)

    def chunks(self) -> Iterator[Chunk]:
        """Cut the items into chunks. Raises: PayloadError for an item that is not JSON."""
        return map(_written, chunked(self._reported(), self._task.chunk_size))

    def close(self) -> None:
        """End a generator now, with its open resources. A traceback might keep it alive."""
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
