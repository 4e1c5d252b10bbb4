"""`Splitter`: one turn in which a batch is cut into chunks; after a kill it goes on exactly where it was.

The cursor says which chunks are certainly in the broker, and which may be. It is written before the chunks are sent,
with a digest of their items. So after a kill the splitter can check that it cuts the same chunks again (protocol 13).
"""

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, NamedTuple

from conventions.batches.batch_state import Origin
from conventions.batches.chunks_of_items import Chunk, Items
from conventions.batches.resume_point import Cursor, Cut
from conventions.batches.splittable_task import SplittableTask
from conventions.broker.batch_membership import chunk_id
from conventions.broker.bulk_publish import PART_BYTES
from conventions.core.errors import ItemsChanged, JobCancelled, PayloadError
from conventions.core.priority import Priority
from conventions.execution.run import TurnOver
from conventions.progress.reporter import Progress
from conventions.sending.bulk_sender import Bulk, Prepared

SENT_TOGETHER = 100  # chunks sent together, or PART_BYTES of them
SENT_AFTER = 1.0  # seconds that a chunk waits for others, at most until the next one is complete


class Splitter:
    """One turn of cutting one batch.

    Args:
        task: the batch's task, whose job runs now.
        arguments: of `items`, as it declares them.
    """

    def __init__(self, task: SplittableTask, arguments: Mapping[str, Any]) -> None:
        self._task, self._arguments = task, arguments
        self._batches = task.app.batches
        self._id = task.request.id
        self._payload, self._sealed = task.arguments.bind((), arguments), task.job.sealed
        self._options = options_of(task.request.delivery_info or {}, task.queue_name)
        self._sent = self._ahead = (
            Cut()
        )  # `sent`: certainly in the broker; `ahead`: cut before a kill, perhaps in the broker
        self._started = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Cut until the end, and return the counts.

        Raises:
            TurnOver: the turn is over, and there may be more.
            ItemsChanged: the items differ from those of earlier turns.
            JobCancelled: the batch was cancelled.
        """
        total_chunks, over = self._begin(), None
        with (
            closing(Items(self._task, self._arguments, self._sent.after)) as items,
            Bulk(self._task.chunk_task.registered, self._options) as bulk,
        ):
            try:
                for part in self._parts(self._new_chunks(items)):
                    self._send(bulk, part, total_chunks)
            except TurnOver as turn_over:  # raised below: to whoever traces the send it is no failure
                self._batches.save_cursor(self._id, Cursor(self._sent, self._sent), sealed=self._sealed)
                over = turn_over
        if over is not None:
            raise over
        if self._ahead.chunks > self._sent.chunks:
            raise self._changed(
                f"there were {self._ahead.chunks} chunks or more, and now there are {self._sent.chunks}"
            )
        if not self._batches.note_is_cut(self._id, chunks=self._sent.chunks, total=self._sent.items):
            raise JobCancelled(f"the batch {self._id} was cancelled")
        return {"batch": self._id, "chunks": self._sent.chunks, "total": self._sent.items}

    def _begin(self) -> int | None:
        """Create the batch, or load its cursor. Returns the expected number of chunks, if known."""
        task = self._task
        cursor = self._batches.cursor(self._id)
        origin = Origin(task.name, dict(self._payload), task.actor, {**self._options})
        self._batches.create(
            self._id, origin, claim=task.job.claim.claim, stall_after=task.stalls_after, sealed=self._sealed
        )
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
                raise self._changed(f"the first {self._sent.items:,} differ from those that were cut")
        return chunks

    def _parts(self, chunks: Iterator[Chunk]) -> Iterator[list[Chunk]]:
        """Groups of chunks to send together; smaller groups if items come slowly. Ends the turn in time."""
        begun = turn = time.monotonic()
        # Skipping the items that are already cut takes longer in each turn. A turn lasts at least that long.
        turn_lasts = max(self._task.seconds_per_turn, turn - self._started)
        part: list[Chunk] = []
        cut = size = 0
        for chunk in chunks:
            part.append(chunk)
            cut, size = cut + 1, size + len(chunk.written)
            again = self._ahead.chunks - self._sent.chunks  # group the chunks as before the kill
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
            messages.append(prepared(bulk, ChunkMessage(self._id, index, total_chunks, chunk.items, self._payload)))
            cut = Cut(index + 1, cut.items + len(chunk.items), chunk.digest(cut.digest), chunk.items[-1])
        resumes = self._ahead.chunks > self._sent.chunks
        if resumes and (self._ahead.chunks, self._ahead.digest) != (cut.chunks, cut.digest):
            raise self._changed(f"[{self._sent.items}] to [{cut.items - 1}] differ from those that were cut")
        self._task.extend_lease(self._task.app.settings.lease)  # raises LeaseLost before anything is sent twice
        self._batches.save_cursor(self._id, Cursor(self._sent, cut), sealed=self._sealed)
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
    """The payload of a chunk's message (R19)."""

    batch_id: str
    chunk_index: int
    total_chunks: int | None
    items: list[Any]
    arguments: dict[str, Any]


def prepared(bulk: Bulk, message: ChunkMessage) -> Prepared:
    """The message of a chunk, checked as each send is. Raises: PayloadError, with what to do about it."""
    try:
        return bulk.prepared(message._asdict(), chunk_id(message.batch_id, message.chunk_index))
    except PayloadError as error:
        raise PayloadError(f"chunk {message.chunk_index}: {error}; or set a smaller chunk_size") from error


def options_of(info: Mapping[str, Any], queue_name: str) -> dict[str, Any]:
    """The priority and queue of a batch, if its sender chose them. Its chunks and its finish use the same.

    Args:
        info: what the request of the batch says of its delivery.
        queue_name: the queue that its task declares.
    """
    options: dict[str, Any] = {}
    with suppress(ValueError):  # another broker or program may have set another number
        if (priority := Priority(info.get("priority", Priority.NORMAL))) is not Priority.NORMAL:
            options["priority"] = priority
    queue = info.get("routing_key")
    if queue and queue != queue_name:
        options["queue"] = queue
    return options
