"""The state of batches in Redis: what was cut, what became of each chunk, and when it is finished (R19).

A batch goes `splitting -> running -> done`, or ends as `dead` (its items could not be read) or `cancelled`. The join is
a set of outcomes by chunk index, so that a chunk delivered twice counts once.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID, uuid5

from conventions.payload import encode
from conventions.progress import Progress
from conventions.store import Store

LIVE_STATES = frozenset({"splitting", "running"})

_NAMESPACE = UUID("6d1f5c0e-8a55-4c1e-9a0e-6f1b3d6f7a41")


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What `finish` is given. `done`, `failed` and `total` count items, `chunks` counts chunks.

    `failed_chunks` are the indexes of chunks that are dead letters; `returns` is what `process` returned, in the order
    of the chunks, without the `None`s.
    """

    id: str
    task: str
    state: str
    total: int | None
    done: int
    failed: int
    chunks: int | None
    failed_chunks: list[int] = field(default_factory=list)
    returns: list[Any] = field(default_factory=list)

    @property
    def percent(self) -> int:
        """floor(100 x done / total); 0 while the total is not known."""
        if self.total is None:
            return 0
        return 100 if self.total == 0 else 100 * self.done // self.total


@dataclass(frozen=True, slots=True)
class Joined:
    """What recording a chunk's outcome changed."""

    changed: bool
    repaired: bool
    complete: bool


class Batches:
    """All batches of one application.

    Args:
        store: where they are kept.
        keep: how long a batch is remembered after its last change.
    """

    def __init__(self, store: Store, keep: timedelta) -> None:
        self._store = store
        self._keep = keep

    def _keys(self, id: str) -> list[str]:  # noqa: A002  # the word of the glossary
        key = self._store.key
        return [key("batch", id), key("batch", id, "outcomes"), key("progress", id), key("batch", id, "returns")]

    def create(self, id: str, task: str, total: int | None) -> None:  # noqa: A002
        """Begin a batch; beginning it again, as after a crash, changes nothing but a `dead` state."""
        batch, _, progress, _ = self._keys(id)
        now = time.time()
        before = self.state(id)
        with self._store.redis.pipeline() as pipe:
            pipe.hsetnx(batch, "created_at", str(now))
            pipe.hset(batch, "task", task)
            if before in (None, "dead"):
                pipe.hset(batch, "state", "splitting")
            pipe.pexpire(batch, self._keep)
            pipe.hsetnx(progress, "started_at", str(now))
            if total is not None:
                pipe.hset(progress, "total", str(total))
            pipe.hset(progress, "updated_at", str(now))
            pipe.pexpire(progress, self._keep)
            pipe.zadd(self._index, {id: now}, nx=True)
            pipe.zremrangebyscore(self._index, "-inf", now - self._keep.total_seconds())
            pipe.execute()

    @property
    def _index(self) -> str:
        return self._store.key("batches")

    def seal(self, id: str, *, chunks: int, total: int) -> bool:  # noqa: A002
        """Say that no more chunks follow. Returns whether every chunk has an outcome already."""
        return bool(self._store.script("seal")(self._keys(id)[:3], [chunks, total]))

    def join(self, id: str, index: int, outcome: Literal["done", "dead"], items: int, returned: Any = None) -> Joined:  # noqa: A002
        """Record the outcome of one chunk."""
        value = b"" if returned is None else encode(returned)
        keep = round(self._keep.total_seconds() * 1000)
        reply = self._store.script("join")(self._keys(id), [index, outcome, items, value, keep])
        return Joined(*map(bool, reply))

    def set_state(self, id: str, state: str) -> None:  # noqa: A002
        """Move a batch to another state; one that was forgotten, or never began, stays so."""
        if self._store.redis.exists(self._keys(id)[0]):
            self._store.redis.hset(self._keys(id)[0], "state", state)

    def state(self, id: str) -> str | None:  # noqa: A002
        """The state of a batch, `None` when there is no such batch."""
        raw: Any = self._store.redis.hget(self._keys(id)[0], "state")
        return raw.decode() if raw else None

    def summary(self, id: str) -> BatchSummary | None:  # noqa: A002
        """A reading of one batch, `None` when there is no such batch."""
        batch, outcomes, _, returns = self._keys(id)
        with self._store.redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(batch)
            pipe.hgetall(outcomes)
            pipe.hgetall(returns)
            fields, ends, values = pipe.execute()
        if not fields:
            return None
        progress = Progress.of(id, self._store)
        return BatchSummary(
            id=id,
            task=fields[b"task"].decode(),
            state=fields[b"state"].decode(),
            total=progress.total,
            done=progress.done,
            failed=progress.failed,
            chunks=int(fields[b"chunks"]) if b"chunks" in fields else None,
            failed_chunks=sorted(int(index) for index, outcome in ends.items() if outcome == b"dead"),
            returns=[json.loads(values[index]) for index in sorted(values, key=int)],
        )

    def listing(self, limit: int) -> Sequence[BatchSummary]:
        """The newest batches first; those already forgotten are dropped from the index."""
        ids: Any = self._store.redis.zrange(self._index, 0, limit - 1, desc=True)
        found = []
        for raw in ids:
            summary = self.summary(raw.decode())
            if summary is None:
                self._store.redis.zrem(self._index, raw)
            else:
                found.append(summary)
        return found


def chunk_id(batch_id: str, index: int) -> str:
    """The message id of a chunk: the same each time the batch is cut."""
    return str(uuid5(_NAMESPACE, f"{batch_id}/{index}"))


def finish_id(batch_id: str) -> str:
    """The message id of a batch's `finish`."""
    return str(uuid5(_NAMESPACE, f"{batch_id}/finish"))
