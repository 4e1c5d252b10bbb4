"""How a batch is cut into chunks: in turns, and after a kill exactly from where it was.

The cursor says which chunks are in the broker for certain, and which may be. It is written before they are sent, with a
digest of their items, so that what is cut again after a kill is known to be the same. (protocol: batches)
"""

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, NamedTuple

from conventions.batch_items import Chunk, Items
from conventions.batches import BatchSummary, Origin
from conventions.bulk import PART_BYTES, Bulk, Prepared
from conventions.cursor import Cursor, Cut
from conventions.errors import ItemsChanged, JobCancelled, PayloadError
from conventions.membership import chunk_id
from conventions.pipeline import TurnOver
from conventions.priority import Priority
from conventions.progress import Progress

SENT_TOGETHER = 100  # chunks, or PART_BYTES of them
SENT_AFTER = 1.0  # seconds: a chunk does not wait longer for others when the next one is complete


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
        self._options = options_of(task)
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
        with (
            closing(Items(self._task, self._arguments, self._sent.after)) as items,
            Bulk(self._task.chunk_task.registered, self._options) as bulk,
        ):
            try:
                for part in self._parts(self._new_chunks(items)):
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
        task = self._task
        cursor = self._batches.cursor(self._id)
        origin = Origin(task.name, dict(self._payload), task.actor, {**self._options})
        self._batches.create(self._id, origin, claim=task.job.claim.claim, stall_after=task.stalls_after)
        self._refuse_cancelled()
        if cursor:
            self._sent, self._ahead = cursor.sent, cursor.intended
            expected = Progress.of(self._id, task.app.store).total
        else:
            expected = task.count(**self._arguments)
            if expected is not None:
                self._batches.expect(self._id, expected)
        return None if expected is None else math.ceil(expected / task.chunk_size)

    def _refuse_cancelled(self) -> None:
        if self._batches.state(self._id) == "cancelled" or self._task.app.claims.is_cancelled(self._id):
            raise JobCancelled(f"the batch {self._id} was cancelled")

    def _new_chunks(self, items: Items) -> Iterator[Chunk]:
        """The chunks that are not in the broker yet."""
        chunks = items.chunks()
        if not self._task.resumes_by_item:
            digest = ""
            for chunk in itertools.islice(chunks, self._sent.chunks):
                digest = chunk.digest(digest)
            if digest != self._sent.digest:
                raise self._changed(f"the first {self._sent.items:,} are others than those that were cut")
        return chunks

    def _parts(self, chunks: Iterator[Chunk]) -> Iterator[list[Chunk]]:
        """Chunks that are sent together: soon, where items come slowly. Ends the turn when it is time."""
        begun = turn = time.monotonic()
        # Reading again what was cut takes ever longer: a turn is at least as long as that.
        turn_lasts = max(self._task.seconds_per_turn, turn - self._started)
        part: list[Chunk] = []
        cut = size = 0
        for chunk in chunks:
            part.append(chunk)
            cut, size = cut + 1, size + len(chunk.written)
            again = self._ahead.chunks - self._sent.chunks  # those go together that went together before a kill
            if len(part) < again:
                continue
            now = time.monotonic()
            over = cut >= self._task.chunks_per_turn or now - turn >= turn_lasts
            is_full = len(part) in (again, SENT_TOGETHER) or size >= PART_BYTES
            if over or is_full or now - begun >= SENT_AFTER:
                yield part
                part, size, begun = [], 0, time.monotonic()
            if over:
                raise TurnOver
        if part:
            yield part

    def _send(self, bulk: Bulk, part: Sequence[Chunk], total_chunks: int | None) -> None:
        cut = self._sent
        messages: list[Prepared] = []
        for index, chunk in enumerate(part, cut.chunks):
            messages.append(_prepared(bulk, ChunkMessage(self._id, index, total_chunks, chunk.items, self._payload)))
            cut = Cut(index + 1, cut.items + len(chunk.items), chunk.digest(cut.digest), chunk.items[-1])
        resumes = self._ahead.chunks > self._sent.chunks
        if resumes and (self._ahead.chunks, self._ahead.digest) != (cut.chunks, cut.digest):
            raise self._changed(f"[{self._sent.items}] to [{cut.items - 1}] are others than those that were cut")
        self._task.extend_lease(self._task.app.settings.lease)  # or LeaseLost, before anything is sent twice
        self._batches.save_cursor(self._id, Cursor(self._sent, cut))
        self._refuse_cancelled()
        bulk.send(messages)
        bulk.flush()
        self._sent = cut

    def _changed(self, what: str) -> ItemsChanged:
        return ItemsChanged(
            f"{self._task.name}: the items changed while they were cut, or chunk_size did: {what}. Chunks that were sent go on. "
            "Send the batch again with another key; yield items that stay the same, or take `after` and yield what comes "
            "after it"
        )


class ChunkMessage(NamedTuple):
    """What a chunk's message carries (R19)."""

    batch_id: str
    chunk_index: int
    total_chunks: int | None
    items: list[Any]
    arguments: dict[str, Any]


def _prepared(bulk: Bulk, message: ChunkMessage) -> Prepared:
    try:
        return bulk.prepared(message._asdict(), chunk_id(message.batch_id, message.chunk_index))
    except PayloadError as error:
        raise PayloadError(f"chunk {message.chunk_index}: {error}; or set a smaller chunk_size") from error


def options_of(task: Any) -> dict[str, Any]:
    """The priority and queue of a batch, where its sender chose them: its chunks and its finish have the same."""
    info = task.request.delivery_info or {}
    options: dict[str, Any] = {}
    with suppress(ValueError):  # of another broker, or another program
        if (priority := Priority(info.get("priority", Priority.NORMAL))) is not Priority.NORMAL:
            options["priority"] = priority
    queue = info.get("routing_key")
    if queue and queue != task.queue_name:
        options["queue"] = queue
    return options


def run_here(task: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Do all of a batch in this process, for `apply`, as in a test: no messages, no retries, nothing kept."""
    returns, total, chunks = [], 0, 0
    payload = task.arguments.bind((), arguments)
    with closing(Items(task, arguments)) as items, Bulk(task.chunk_task.registered, {}) as bulk:
        for chunk in items.chunks():
            _prepared(
                bulk, ChunkMessage(task.request.id, chunks, None, chunk.items, payload)
            )  # refused here as when sent
            returns.append(task.process(chunk.items, **arguments))
            total, chunks = total + len(chunk.items), chunks + 1
    returned = [one for one in returns if one is not None]
    task.finish(
        BatchSummary(task.request.id, task.name, "running", total, total, 0, chunks, returns=returned), **arguments
    )
    return {"batch": task.request.id, "chunks": chunks, "total": total}
