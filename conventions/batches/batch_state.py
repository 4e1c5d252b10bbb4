"""The state of batches in Redis: the chunks that were cut, their outcomes, and the messages still to send (R19).

A batch goes `splitting -> running -> done`, or ends as `dead` (its items could not be read, or its finish failed) or
`cancelled`. The step that settles a chunk also stores its outcome by the chunk's index (`storage/lua/batch.lua`). So a chunk that
is delivered twice counts once. The semantics are those of Sidekiq's batches: a set of members, never a counter.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from conventions.batches.batch_summary import BatchSummary, summary_of
from conventions.batches.resume_point import Cursor
from conventions.core.chunking import batched
from conventions.core.errors import BusinessError
from conventions.core.sealed_mark import is_sealed_text
from conventions.core.time_units import milliseconds
from conventions.sealing.payload_keys import PayloadKeys
from conventions.sealing.sealed_text import open_text, seal_text
from conventions.storage.redis_store import Store

STATES = ("splitting", "running", "done", "dead", "cancelled")
ARGUMENTS, CURSOR = "arguments of a batch", "cursor of a batch"  # what a sealed text is
LIVE_STATES = frozenset({"splitting", "running"})
LOOKED_THROUGH = 1000  # the newest batches that a search for one state reads


@dataclass(frozen=True, slots=True)
class Origin:
    """How a batch was sent: its task, its arguments as JSON, its actor, the options of the send, and whether it was sealed."""

    task: str
    arguments: dict[str, Any]
    actor: str
    options: dict[str, Any] = field(default_factory=dict)
    sealed: bool = False


@dataclass(frozen=True, slots=True)
class NextMessage:
    """A message that a batch needs next. `number`: how many chunks were repaired so far."""

    kind: Literal["finish", "recovered"]
    number: int


class Batches:
    """All batches of one application.

    Args:
        store: where they are kept.
        keep: how long a batch is kept after its last change: as long as its messages may be on their way.
        keys: seal what sealed batches hold; `None`: there are none.
    """

    def __init__(self, store: Store, keep: timedelta, keys: PayloadKeys | None = None) -> None:
        self._store, self._keys = store, keys
        self.keep = keep

    def _key(self, id: str, *parts: str) -> str:  # noqa: A002  # the word of the glossary
        return self._store.key("batch", id, *parts)

    @property
    def _index(self) -> str:
        return self._store.key("batches")

    def create(
        self,
        id: str,  # noqa: A002
        origin: Origin,
        total: int | None = None,
        *,
        claim: str = "",
        stall_after: float = 600,
        sealed: bool = False,
    ) -> None:
        """Begin a batch. A second call changes nothing, unless cutting it had failed.

        Args:
            id: of the batch, and of its message.
            origin: how it was sent.
            total: the number of items, if known.
            claim: of its splitter; it is released if the batch ends while it is cut.
            stall_after: seconds without an outcome after which the batch counts as stalled.
            sealed: whether its arguments are sealed, as its message is.
        """
        batch, progress = self._key(id), self._store.key("progress", id)
        now = time.time()
        state, chunks = self._store.redis.hmget(batch, "state", "chunks")
        with self._store.redis.pipeline() as pipe:
            pipe.hsetnx(batch, "created_at", str(now))
            arguments = self._written(json.dumps(origin.arguments), ARGUMENTS, id, sealed=sealed)
            more = {"arguments": arguments, "options": json.dumps(origin.options), "claim": claim}
            described: dict[Any, Any] = {"task": origin.task, "actor": origin.actor, **more}
            pipe.hset(batch, mapping=described)
            if state is None or (state == b"dead" and chunks is None):
                pipe.hset(batch, "state", "splitting")
                pipe.hdel(progress, "ended", "same_as")
            pipe.pexpire(batch, self.keep)
            pipe.hsetnx(progress, "started_at", str(now))
            told: dict[Any, Any] = {"updated_at": str(now), "stall_after": str(stall_after), "is_batch": "1"}
            pipe.hset(progress, mapping=told | ({} if total is None else {"total": str(total)}))
            pipe.pexpire(progress, self.keep)
            pipe.zadd(self._index, {id: now}, nx=True)
            pipe.zremrangebyscore(self._index, "-inf", now - self.keep.total_seconds())
            pipe.execute()

    def note_duplicate(self, id: str, of: str, *, ignored: bool) -> None:  # noqa: A002
        """Note that this message asked for a batch that was already sent. Its id then leads to that batch.

        `ignored`: whether nobody keeps the result of this message.
        """
        with self._store.redis.pipeline() as pipe:
            for key in (self._key(id), self._store.key("progress", id)):
                pipe.hset(key, mapping={"same_as": of, "ignored": int(ignored)})
                pipe.pexpire(key, self.keep)
            pipe.execute()

    def expect(self, id: str, total: int) -> None:  # noqa: A002
        """Set the expected number of items."""
        self._store.redis.hset(self._store.key("progress", id), "total", total)

    def cursor(self, id: str) -> Cursor | None:  # noqa: A002
        """Where the splitter resumes. `None` if it has not begun."""
        raw: Any = self._store.redis.hget(self._key(id), "cursor")
        return Cursor.read(self._read_text(raw, CURSOR, id)) if raw else None

    def _written(self, text: str, what: str, id: str, *, sealed: bool) -> str:  # noqa: A002
        return seal_text(self._keys, text, what, id) if sealed and self._keys is not None else text

    def _read_text(self, raw: bytes, what: str, id: str) -> str:  # noqa: A002
        return open_text(self._keys, raw.decode(), what, id)

    def save_cursor(self, id: str, cursor: Cursor, *, sealed: bool = False) -> None:  # noqa: A002
        """Write where the splitter resumes if it dies now; `sealed`: it holds an item, as the message of the batch does."""
        text = self._written(cursor.encode(), CURSOR, id, sealed=sealed)
        with self._store.redis.pipeline(transaction=False) as pipe:
            pipe.hset(self._key(id), "cursor", text)
            pipe.pexpire(self._key(id), self.keep)
            pipe.execute()

    def note_is_cut(self, id: str, *, chunks: int, total: int) -> bool:  # noqa: A002
        """Note that the last chunk was sent. False if the batch was cancelled meanwhile.

        Raises:
            BusinessError: the batch is forgotten, for example after a flush of Redis.
        """
        answer = self._store.run("batch_is_cut", [id, chunks, total])
        if answer == b"forgotten":
            raise BusinessError(f"nothing is remembered of the batch {id}, as after Redis was emptied: send it again")
        return bool(answer == b"cut")

    def cancel(self, id: str) -> bool:  # noqa: A002
        """Stop cutting and processing a batch. False if it has ended or does not exist."""
        return bool(self._store.run("cancel_batch", [id, milliseconds(self.keep)]))

    def take_next_message(self, id: str) -> NextMessage | None:  # noqa: A002
        """The message that the batch needs now. The caller must send it: nobody else gets it within the next minute."""
        kind, number = self._store.run("batch_follow", [id])
        return NextMessage(kind.decode(), int(number)) if kind else None

    def closing(self, limit: int = 10) -> list[str]:
        """Batches that wait for a message whose sender died."""
        return [id_.decode(errors="backslashreplace") for id_ in self._store.run("batches_to_follow", [limit])]

    def state(self, id: str) -> str | None:  # noqa: A002
        """The state of a batch. `None` if there is no such batch."""
        raw: Any = self._store.redis.hget(self._key(id), "state")
        return raw.decode() if raw else None

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """The states of those ids that are batches, in one round trip."""
        with self._store.redis.pipeline(transaction=False) as pipe:
            for one in ids:
                pipe.hget(self._key(one), "state")
            found = pipe.execute()
        return {id_: state.decode() for id_, state in zip(ids, found, strict=True) if state}

    def summaries(self, ids: Sequence[str]) -> list[BatchSummary | None]:
        """The summaries of several batches, in one round trip, without the results of `process`."""
        return self._read(ids, returns=False) if ids else []

    def origin(self, id: str) -> Origin | None:  # noqa: A002
        """How a batch was sent. `None` if there is no such batch. Raises: CannotOpen: its arguments are sealed, and its key is not here."""
        fields: Any = self._store.redis.hmget(self._key(id), "task", "arguments", "actor", "options")
        task, arguments, actor, options = fields
        if task is None:
            return None
        text, sealed = self._read_text(arguments, ARGUMENTS, id), is_sealed_text(arguments.decode())
        return Origin(task.decode(), json.loads(text), actor.decode(), json.loads(options), sealed)

    def is_reported(self, id: str, repairs: int) -> bool:  # noqa: A002
        """Whether a later `recovered` has already reported this many repairs."""
        told: Any = self._store.redis.hget(self._key(id), "told")
        return int(told or 0) >= repairs

    def snapshot(self, id: str, number: int = 0) -> BatchSummary | None:  # noqa: A002
        """The summary for `finish` (0) or for a `recovered`. A later repair calls `recovered` again."""
        batch = self._key(id)
        repairs: Any = self._store.redis.hget(batch, "repairs")
        summary = self.summary(id)
        if summary is not None:
            self._store.redis.hset(batch, f"snapshot:{number}", repairs or b"0")
        return summary

    def summary(self, id: str, *, returns: bool = True) -> BatchSummary | None:  # noqa: A002
        """The summary of one batch. `None` if there is no such batch. `returns`: with the results of `process`."""
        (found,) = self._read([id], returns=returns)
        if found is not None:
            return found
        same: Any = self._store.redis.hget(self._key(id), "same_as")
        return self.summary(same.decode(), returns=returns) if same else None

    def listing(self, limit: int, state: str | None = None) -> Sequence[BatchSummary]:
        """The newest batches first, without the results of `process`. Expired ones are removed from the index.

        Args:
            limit: the largest number.
            state: only batches in this state, among the newest 1,000 (`LOOKED_THROUGH`).
        """
        look = limit if state is None else max(limit, LOOKED_THROUGH)
        newest: Any = self._store.redis.zrange(self._index, 0, look - 1, desc=True)
        with self._store.redis.pipeline(transaction=False) as pipe:
            for raw in newest:
                pipe.hget(self._key(raw.decode(errors="backslashreplace")), "state")
            states = dict(zip(newest, pipe.execute(), strict=True))
        if gone := [raw for raw, found in states.items() if found is None]:
            self._store.redis.zrem(self._index, *gone)
        chosen = [raw.decode() for raw, found in states.items() if found and state in (None, found.decode())]
        return [one for one in self._read(chosen[:limit], returns=False) if one is not None]

    def _read(self, ids: Sequence[str], *, returns: bool) -> list[BatchSummary | None]:
        with self._store.redis.pipeline(transaction=False) as pipe:
            for id_ in ids:
                pipe.hgetall(self._key(id_))
                pipe.hgetall(self._store.key("progress", id_))
                pipe.hgetall(self._key(id_, "failed"))
                pipe.hlen(self._key(id_, "outcomes"))
                if returns:
                    pipe.hgetall(self._key(id_, "returns"))
            read = batched(pipe.execute(), 5 if returns else 4)
            return [summary_of(id_, self._keys, *found) for id_, found in zip(ids, read, strict=True)]
