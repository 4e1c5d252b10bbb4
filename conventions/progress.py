"""`Progress`: how far a long job or a batch is, kept in Redis and readable by id from anywhere (R11)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from conventions.errors import JobCancelled
from conventions.store import Store, current_store

WRITE_EVERY = 0.5  # seconds between two writes of a job that reports each item


@dataclass(frozen=True, slots=True)
class Progress:
    """A reading of a job's progress. Counts are items; times are seconds since the epoch."""

    id: str
    done: int = 0
    failed: int = 0
    total: int | None = None
    note: str = ""
    started_at: float = 0
    updated_at: float = 0
    stall_after: float = 600

    @classmethod
    def of(cls, id: str, store: Store | None = None) -> Self:  # noqa: A002  # the word of the glossary
        """Read the progress of a job by its id; zero everywhere when it has not reported yet."""
        store = store or current_store()
        raw: Any = store.redis.hgetall(store.key("progress", id))
        fields = {name.decode(): value.decode() for name, value in raw.items()}
        return cls(
            id=id,
            done=int(fields.get("done", 0)),
            failed=int(fields.get("failed", 0)),
            total=int(fields["total"]) if "total" in fields else None,
            note=fields.get("note", ""),
            started_at=float(fields.get("started_at", 0)),
            updated_at=float(fields.get("updated_at", 0)),
            stall_after=float(fields.get("stall_after", 600)),
        )

    @property
    def percent(self) -> int | None:
        """floor(100 x done / total), or `None` while the total is not known."""
        if self.total is None:
            return None
        return 100 if self.total == 0 else 100 * self.done // self.total

    @property
    def finished(self) -> bool:
        """Whether every item is done or failed."""
        return self.total is not None and self.done + self.failed >= self.total

    @property
    def rate(self) -> float:
        """Items a second since the start."""
        elapsed = self.updated_at - self.started_at
        return (self.done + self.failed) / elapsed if elapsed > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds until the end at the present rate, or `None` when that cannot be told."""
        if self.total is None or not self.rate:
            return None
        return max(0.0, (self.total - self.done - self.failed) / self.rate)

    @property
    def stalled(self) -> bool:
        """Whether nothing was reported for `stall_after` seconds before the end."""
        return bool(self.updated_at) and not self.finished and time.time() - self.updated_at > self.stall_after


class ProgressReporter:
    """What a running job writes through `self.progress`.

    Writes at most twice a second; the last state is written when the job ends.

    Args:
        beat: called at every report, so that a lease can follow progress.
        cancel_key: the key whose existence says that the message was cancelled.
    """

    def __init__(
        self,
        store: Store,
        id: str,  # noqa: A002
        *,
        keep: timedelta,
        beat: Callable[[], None],
        cancel_key: str | None = None,
        stall_after: float = 600,
    ) -> None:
        self._store, self._id, self._keep, self._beat = store, id, keep, beat
        self._stall_after, self._cancel_key = stall_after, cancel_key
        self._done = self._failed = 0
        self._total: int | None = None
        self._note: str | None = None
        self._written = 0.0

    @property
    def total(self) -> int | None:
        """Items in all, when known; setting it writes at once."""
        return self._total

    @total.setter
    def total(self, value: int) -> None:
        self._total = value
        self._report()

    def advance(self, n: int = 1, *, failed: int = 0, note: str | None = None) -> None:
        """Report `n` more items done and `failed` more failed.

        Raises:
            JobCancelled: the message was cancelled; let it through, it ends the job.
        """
        self._done += n
        self._failed += failed
        self._note = note if note is not None else self._note
        self._beat()
        if time.monotonic() - self._written >= WRITE_EVERY:
            self._report()

    def _report(self) -> None:
        if self.flush():
            raise JobCancelled(f"the message {self._id} was cancelled")

    def flush(self) -> bool:
        """Write what was counted since the last write. Returns whether the message was cancelled."""
        now = time.time()
        key = self._store.key("progress", self._id)
        with self._store.redis.pipeline() as pipe:
            if not self._written:  # an attempt begins at the first item
                first: dict[Any, Any] = {"started_at": str(now), "done": "0", "failed": "0"}
                pipe.hset(key, mapping={**first, "stall_after": str(self._stall_after)})
            pipe.hincrby(key, "done", self._done)
            pipe.hincrby(key, "failed", self._failed)
            values = {"updated_at": str(now), "total": self._total, "note": self._note}
            pipe.hset(key, mapping={name: value for name, value in values.items() if value is not None})
            pipe.pexpire(key, self._keep)
            pipe.exists(self._cancel_key or f"{key}:cancelled")
            *_, cancelled = pipe.execute()
        self._done = self._failed = 0
        self._written = time.monotonic()
        return bool(cancelled)

    def close(self) -> None:
        """Write what is left, if anything was ever reported."""
        if self._done or self._failed or self._note is not None:
            self.flush()
