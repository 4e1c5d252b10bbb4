"""How a batch is cut into chunks: in turns, and after a kill exactly from where it was.

The cursor says which chunks are in the broker for certain, and which may be. It is written before they are sent, with a
digest of their items, so that what is cut again after a kill is known to be the same. (protocol: batches)
"""

import hashlib
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from conventions.batches import BatchSummary, Cursor, Cut, Origin, chunk_id
from conventions.bulk import Bulk, Prepared
from conventions.chunking import chunked
from conventions.errors import ItemsChanged, JobCancelled, PayloadError
from conventions.payload import encode
from conventions.pipeline import TurnOver
from conventions.progress import Progress

SENT_TOGETHER = 100  # chunks
SENT_AFTER = 1.0  # seconds at the most that a chunk waits for others
AFTER = "after"  # the argument of `items` that is given the last item


class Splitter:
    """One turn of cutting one batch.

    Args:
        task: the batch's task, whose job runs now.
        arguments: those of `items`, as it declares them.
    """

    def __init__(self, task: Any, arguments: Mapping[str, Any]) -> None:
        self._task, self._arguments = task, arguments
        self._batches = task.app.batches
        self._id = task.request.id
        self._payload = task.arguments.bind((), arguments)
        self._sent = self._ahead = Cut()  # cut and in the broker; cut before a kill, and perhaps there
        self._started = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Cut until the end, and return what was cut.

        Raises:
            TurnOver: the turn is over, and there may be more.
            ItemsChanged: the items are not those of the turns before.
            JobCancelled: the batch was cancelled.
        """
        total_chunks = self._begin()
        with Bulk(self._task.chunk_task.registered, {}) as bulk:
            try:
                for part in self._parts(self._chunks()):
                    self._send(bulk, part, total_chunks)
            except TurnOver:
                self._batches.save_cursor(self._id, Cursor(self._sent, self._sent))
                raise
        if self._ahead.chunks > self._sent.chunks:
            raise self._changed(
                f"there were {self._ahead.chunks} chunks or more, and now there are {self._sent.chunks}"
            )
        if not self._batches.seal(self._id, chunks=self._sent.chunks, total=self._sent.items):
            raise JobCancelled(f"the batch {self._id} was cancelled")
        return {"batch": self._id, "chunks": self._sent.chunks, "total": self._sent.items}

    def _begin(self) -> int | None:
        """Create the batch, or find where it is. Returns how many chunks there will be, where that is known."""
        cursor = self._batches.cursor(self._id)
        if cursor:
            self._sent, self._ahead = cursor.sent, cursor.intended
        expected = Progress.of(self._id, self._task.app.store).total if cursor else self._task.count(**self._arguments)
        origin = Origin(self._task.name, dict(self._payload), self._task.actor)
        self._batches.create(self._id, origin, expected)
        return None if expected is None else math.ceil(expected / self._task.chunk_size)

    def _chunks(self) -> Iterator[list[Any]]:
        """The chunks that are not in the broker yet, as JSON."""
        size = self._task.chunk_size
        if self._task.resumes_by_item:
            items = self._task.items(**self._arguments, **{AFTER: self._sent.after})
            yield from map(_as_json, chunked(items, size))
            return
        chunks = map(_as_json, chunked(self._task.items(**self._arguments), size))
        digest = ""
        for chunk in itertools.islice(chunks, self._sent.chunks):
            digest = _digest(digest, chunk)
            self._task.report_alive()
        if digest != self._sent.digest:
            raise self._changed(f"the first {self._sent.items:,} are others than those that were cut")
        yield from chunks

    def _parts(self, chunks: Iterator[list[Any]]) -> Iterator[list[list[Any]]]:
        """Chunks that are sent together: soon, where items come slowly. Ends the turn when it is time."""
        part: list[list[Any]] = []
        begun, cut = time.monotonic(), 0
        for chunk in chunks:
            part.append(chunk)
            cut += 1
            self._task.report_alive()
            again = self._ahead.chunks - self._sent.chunks  # those go together that went together before a kill
            if len(part) < again:
                continue
            now = time.monotonic()
            over = cut >= self._task.chunks_per_turn or now - self._started >= self._task.seconds_per_turn
            if over or len(part) in (again, SENT_TOGETHER) or now - begun >= SENT_AFTER:
                yield part
                part, begun = [], time.monotonic()
            if over:
                raise TurnOver
        if part:
            yield part

    def _send(self, bulk: Bulk, part: Sequence[list[Any]], total_chunks: int | None) -> None:
        cut = self._sent
        messages: list[Prepared] = []
        for index, chunk in enumerate(part, cut.chunks):
            kwargs = {"batch_id": self._id, "chunk_index": index, "total_chunks": total_chunks, "items": chunk}
            messages.append(bulk.prepared(kwargs | {"arguments": self._payload}, chunk_id(self._id, index)))
            cut = Cut(index + 1, cut.items + len(chunk), _digest(cut.digest, chunk), chunk[-1])
        resumes = self._ahead.chunks > self._sent.chunks
        if resumes and (self._ahead.chunks, self._ahead.digest) != (cut.chunks, cut.digest):
            raise self._changed(f"[{self._sent.items}] to [{cut.items - 1}] are others than those that were cut")
        self._task.extend_lease(self._task.app.settings.lease)  # or LeaseLost, before anything is sent twice
        self._batches.save_cursor(self._id, Cursor(self._sent, cut))
        if self._batches.state(self._id) == "cancelled":
            raise JobCancelled(f"the batch {self._id} was cancelled")
        bulk.send(messages)
        bulk.flush()
        self._sent = cut

    def _changed(self, what: str) -> ItemsChanged:
        return ItemsChanged(
            f"{self._task.name}: the items changed while they were cut: {what}. Chunks that were sent go on. Send the batch "
            "again with another key; yield items that stay the same, or take `after` and yield what comes after it"
        )


def run_here(task: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Do all of a batch in this process, for `apply`, as in a test: no messages, no retries, nothing kept."""
    first = {AFTER: None} if task.resumes_by_item else {}
    returns, items, chunks = [], 0, 0
    for chunk in map(_as_json, chunked(task.items(**arguments, **first), task.chunk_size)):
        returns.append(task.process(chunk, **arguments))
        items, chunks = items + len(chunk), chunks + 1
    returned = [one for one in returns if one is not None]
    task.finish(
        BatchSummary(task.request.id, task.name, "running", items, items, 0, chunks, returns=returned), **arguments
    )
    return {"batch": task.request.id, "chunks": chunks, "total": items}


def _as_json(chunk: list[Any]) -> list[Any]:
    try:
        return list(to_jsonable_python(chunk))
    except PydanticSerializationError as error:
        raise PayloadError(
            f"an item of a batch cannot be written as JSON ({error}); yield ids, or JSON values"
        ) from None


def _digest(before: str, chunk: list[Any]) -> str:
    return hashlib.sha256(before.encode() + encode(chunk)).hexdigest()[:32]
