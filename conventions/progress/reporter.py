"""`Progress`: how far a long job or a batch is. It is kept in Redis and can be read by id from anywhere (R11)."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, Self, TypeAlias, cast

from redis.exceptions import RedisError

from conventions.core.canonical_json import encode
from conventions.core.error_text import without_values
from conventions.core.errors import JobCancelled, LeaseLost
from conventions.core.time_units import milliseconds
from conventions.idempotency.claims import ClaimRequest
from conventions.storage.redis_store import Store, current_store

logger = logging.getLogger(__name__)

NOTE_LENGTH = 10_000  # characters: it lies in Redis, and each look at the job reads it

Answer: TypeAlias = Literal["on", "cancelled", "lost"]

WRITE_EVERY = 0.5  # seconds between two writes, even if the job reports each item
AFTER_ERROR = 5.0  # seconds until the next try after Redis did not answer


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a job resumes. `value` is the task's own; `done` and `failed` are the counts at that point."""

    value: Any = None
    done: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """A reading of a job's progress. Counts are items; times are seconds since the epoch.

    `ended`: `done`, `dead` or `cancelled`, once the job or the batch has ended. `resumed`: items that were counted before this
    attempt. `is_batch`: whether it is the progress of a batch. `ignored`: whether the result of the job is not kept.
    """

    id: str
    done: int = 0
    failed: int = 0
    total: int | None = None
    note: str = ""
    started_at: float = 0
    updated_at: float = 0
    stall_after: float = 600
    ended: str = ""
    resumed: int = 0
    is_batch: bool = False
    ignored: bool = True

    @classmethod
    def of(cls, id: str, store: Store | None = None) -> Self:  # noqa: A002  # the word of the glossary
        """Read the progress of a job by its id. All counts are zero until its first report."""
        store = store or current_store()
        raw: Any = store.redis.hgetall(store.key("progress", id))
        if same := raw.get(b"same_as"):  # the message was a duplicate of a batch
            # Whether a result will come depends on this message, not on the batch.
            return replace(cls.of(same.decode(), store), ignored=raw.get(b"ignored", b"1") == b"1")
        return cls.read(id, raw)

    @classmethod
    def read(cls, id: str, raw: Mapping[bytes, bytes]) -> Self:  # noqa: A002
        """Make it from the fields of the hash in Redis."""
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
            ended=fields.get("ended", ""),
            resumed=int(fields.get("resumed", 0)),
            is_batch="is_batch" in fields,
            ignored=fields.get("ignored", "1") == "1",
        )

    @staticmethod
    def checkpoint_of(id: str, fingerprint: str, store: Store) -> Checkpoint | None:  # noqa: A002
        """The checkpoint of an earlier attempt, if the arguments are the same. Raises: RedisError."""
        raw: Any = store.redis.hget(store.key("progress", id), "checkpoint")
        found = json.loads(raw) if raw else {}
        return (
            Checkpoint(found["value"], found["done"], found["failed"])
            if found.get("fingerprint") == fingerprint
            else None
        )

    @property
    def percent(self) -> int | None:
        """floor(100 x done / total). `None` while the total is unknown."""
        if self.total is None:
            return None
        return 100 if self.total == 0 else min(100, 100 * self.done // self.total)

    @property
    def finished(self) -> bool:
        """Whether the job has ended, or every item is done or failed. A batch ends with its `finish`."""
        if self.ended or self.is_batch:
            return bool(self.ended)
        return self.total is not None and self.done + self.failed >= self.total

    @property
    def rate(self) -> float:
        """Items a second since the start of this attempt."""
        elapsed = self.updated_at - self.started_at
        return max(0, self.done + self.failed - self.resumed) / elapsed if elapsed > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds until the end at the present rate. `None` when it is unknown."""
        if self.total is None or not self.rate:
            return None
        return max(0.0, (self.total - self.done - self.failed) / self.rate)

    @property
    def stalled(self) -> bool:
        """Whether an unfinished job has reported nothing for `stall_after` seconds."""
        return bool(self.updated_at) and not self.finished and time.time() - self.updated_at > self.stall_after


@dataclass(frozen=True, slots=True)
class LeaseGuard:
    """The claim that a job must hold to report. Each report renews it for `lease` seconds.

    Attributes:
        request: the claim, with its token.
        lease: seconds.
        batch_id: the batch of the job.
    """

    request: ClaimRequest
    lease: float
    batch_id: str = ""


class ProgressReporter:
    """Writes the progress of a running job, as `self.progress`.

    It writes at most twice a second, and the last state at the end of the job. A report is one round trip: it writes the counts,
    renews the lease, and asks whether the job may go on. If Redis does not answer, the job goes on.

    Args:
        store: where the progress is written.
        id: the job's message.
        keep: how long the progress is kept.
        on_report: called at every report, so that the lease is renewed only while there is progress.
        guard: the claim to renew; `None` for a job without one.
        stall_after: seconds without a report after which readers call the job stalled.
        start: the checkpoint at which the job began.
        counts: whether the counts are this job's own. The chunks of a batch count for the batch when they end.
        ignored: whether the result of the job is not kept.
        note_as: what a note is written as.
    """

    def __init__(
        self,
        store: Store,
        id: str,  # noqa: A002
        *,
        keep: timedelta,
        on_report: Callable[[], None],
        guard: LeaseGuard | None = None,
        stall_after: float = 600,
        start: Checkpoint = Checkpoint(),
        counts: bool = True,
        ignored: bool = True,
        note_as: Callable[[str], str] = str,
    ) -> None:
        self._store, self._id, self._keep, self._on_report, self._guard = store, id, keep, on_report, guard
        self._note_as = note_as
        self._done, self._failed = start.done, start.failed
        self._total: int | None = None
        self._note: str | None = None
        before = start.done + start.failed
        self._first = {"stall_after": stall_after, "ignored": int(ignored), "resumed": before}
        self._counts = counts
        self._has_begun = False
        self._next = 0.0  # when it is time to write again
        self._unwritten = False

    @property
    def total(self) -> int | None:
        """The number of items, if known. Setting it writes at once."""
        return self._total

    @total.setter
    def total(self, value: int) -> None:
        if type(value) is not int or value < 0:
            raise ValueError(f"progress.total must be a number of items, not {value!r}")
        self._total = value
        self._on_report()
        self._report()

    def advance(self, n: int = 1, *, failed: int = 0, note: str | None = None) -> None:
        """Report `n` more items done and `failed` more failed. Of a note, the first 10,000 characters are kept.

        Raises:
            JobCancelled: the message was cancelled. Do not catch it: it ends the job.
            LeaseLost: another worker has taken the job over, or it was ended from outside. Do not catch it, and do nothing more.
        """
        self._done += n
        self._failed += failed
        self._note = note[:NOTE_LENGTH] if note is not None else self._note
        self._unwritten = True
        self._on_report()
        if time.monotonic() >= self._next:
            self._report()

    def checkpoint(self, value: Any, fingerprint: str) -> None:
        """Write the checkpoint for a next attempt with the same arguments, and all counts.

        Raises:
            JobCancelled, LeaseLost: as `advance`.
            TypeError, ValueError: the value is not JSON.
        """
        self._on_report()
        where = {"value": value, "done": self._done, "failed": self._failed, "fingerprint": fingerprint}
        self._report({"checkpoint": encode(where).decode()})

    def _report(self, more: Mapping[str, str] | None = None) -> None:
        match self.flush(more):
            case "cancelled":
                raise JobCancelled(f"the message {self._id}, or its batch, was cancelled")
            case "lost":
                raise without_values(
                    LeaseLost(
                        f"{self._id}: another worker has taken this job over, since its lease was over, or it was ended from outside; end here, and "
                        "do nothing more. If it was the lease, report progress more often, or raise stall_after"
                    )
                )

    def flush(self, more: Mapping[str, str] | None = None) -> Answer:
        """Write the counts. Returns whether the job may go on; it may if Redis does not answer."""
        try:
            with closing(self._store.call("progress_report", self._arguments(more or {}))) as call:
                answer = call.answer(again=False)  # the next report repeats everything
        except RedisError as error:
            logger.warning("progress not written: id=%s: %s", self._id, error)
            self._next = time.monotonic() + AFTER_ERROR
            return "on"
        self._next = time.monotonic() + WRITE_EVERY
        self._has_begun, self._unwritten = True, False
        return cast(Answer, answer.decode())

    def _arguments(self, more: Mapping[str, str]) -> list[Any]:
        now = time.time()
        fields: dict[str, Any] = {"updated_at": now, **more}
        if self._counts:
            fields |= {"done": self._done, "failed": self._failed}
        if self._counts and not self._has_begun:  # the first report of an attempt
            fields |= {"started_at": now, **self._first}
        if self._total is not None:
            fields["total"] = self._total
        if self._note is not None:
            fields["note"] = self._note_as(self._note)
        request = self._guard.request if self._guard else None
        claim = [request.claim, request.token] if request else ["", ""]
        lease, batch = (self._guard.lease, self._guard.batch_id) if self._guard else (0.0, "")
        keep = milliseconds(self._keep)
        pairs = [one for pair in fields.items() for one in pair]
        return [self._id, keep, milliseconds(lease), *claim, batch, *pairs]

    def close(self) -> None:
        """Write what was reported since the last write."""
        if self._unwritten:
            self.flush()
