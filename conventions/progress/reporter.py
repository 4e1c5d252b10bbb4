"""`Progress`: how far a long job or a batch is, kept in Redis and readable by id from anywhere (R11)."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, Self, cast

from redis.exceptions import RedisError

from conventions.core.errors import JobCancelled, LeaseLost
from conventions.core.units import milliseconds
from conventions.declare.payload import encode
from conventions.idempotency.claims import ClaimRequest
from conventions.storage.redis_store import Store, current_store

logger = logging.getLogger(__name__)

type Answer = Literal["on", "cancelled", "lost"]

WRITE_EVERY = 0.5  # seconds between two writes of a job that reports each item
AFTER_ERROR = 5.0  # seconds until Redis is asked again that did not answer


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a job goes on: `value` is the task's own, `done` and `failed` what was counted by then."""

    value: Any = None
    done: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """A reading of a job's progress. Counts are items; times are seconds since the epoch.

    `ended` is `done`, `dead` or `cancelled` once the job, or the batch, has ended. `resumed` items were counted before the
    attempt began; `is_batch`: it is that of a batch; `ignored`: nobody keeps its result.
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
        """Read the progress of a job by its id; zero everywhere when it has not reported yet."""
        store = store or current_store()
        raw: Any = store.redis.hgetall(store.key("progress", id))
        if same := raw.get(b"same_as"):  # the message was a duplicate, of a batch
            # Whether a result comes in a moment is a question of this message.
            return replace(cls.of(same.decode(), store), ignored=raw.get(b"ignored", b"1") == b"1")
        return cls.read(id, raw)

    @classmethod
    def read(cls, id: str, raw: Mapping[bytes, bytes]) -> Self:  # noqa: A002
        """What the fields say that Redis has under the id."""
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
        """Where a job that ran before goes on, if its arguments are the same. Raises: RedisError."""
        raw: Any = store.redis.hget(store.key("progress", id), "checkpoint")
        found = json.loads(raw) if raw else {}
        return (
            Checkpoint(found["value"], found["done"], found["failed"])
            if found.get("fingerprint") == fingerprint
            else None
        )

    @property
    def percent(self) -> int | None:
        """floor(100 x done / total), or `None` while the total is not known."""
        if self.total is None:
            return None
        return 100 if self.total == 0 else min(100, 100 * self.done // self.total)

    @property
    def finished(self) -> bool:
        """Whether the job has ended, or every item of it is done or failed; a batch ends with its `finish`."""
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
        """Seconds until the end at the present rate, or `None` when that cannot be told."""
        if self.total is None or not self.rate:
            return None
        return max(0.0, (self.total - self.done - self.failed) / self.rate)

    @property
    def stalled(self) -> bool:
        """Whether nothing was reported for `stall_after` seconds before the end."""
        return bool(self.updated_at) and not self.finished and time.time() - self.updated_at > self.stall_after


@dataclass(frozen=True, slots=True)
class LeaseGuard:
    """What a job must hold to report: its claim, by token, for `lease` seconds from each report.

    Attributes:
        request: the claim.
        lease: seconds.
        batch_id: the batch that the job is a part of.
    """

    request: ClaimRequest
    lease: float
    batch_id: str = ""


class ProgressReporter:
    """What a running job writes through `self.progress`.

    Writes at most twice a second; the last state is written when the job ends. A report is one round trip, which counts,
    renews the lease and asks whether the job may go on. While Redis does not answer, the job goes on.

    Args:
        store: where it is written.
        id: the job's message.
        keep: how long it is remembered.
        beat: called at every report, so that a lease can follow progress.
        holder: the claim that is renewed; `None` for a job without one.
        stall_after: seconds without a report after which readers take the job for hung.
        start: the checkpoint at which the job began.
        counts: whether the counts are this job's; those of a batch are kept by the ends of its chunks.
        ignored: whether nobody keeps the job's result.
    """

    def __init__(
        self,
        store: Store,
        id: str,  # noqa: A002
        *,
        keep: timedelta,
        beat: Callable[[], None],
        holder: LeaseGuard | None = None,
        stall_after: float = 600,
        start: Checkpoint = Checkpoint(),
        counts: bool = True,
        ignored: bool = True,
    ) -> None:
        self._store, self._id, self._keep, self._beat, self._holder = store, id, keep, beat, holder
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
        """Items in all, when known; setting it writes at once."""
        return self._total

    @total.setter
    def total(self, value: int) -> None:
        if type(value) is not int or value < 0:
            raise ValueError(f"progress.total must be a number of items, not {value!r}")
        self._total = value
        self._beat()
        self._report()

    def advance(self, n: int = 1, *, failed: int = 0, note: str | None = None) -> None:
        """Report `n` more items done and `failed` more failed.

        Raises:
            JobCancelled: the message was cancelled; let it through, it ends the job.
            LeaseLost: another worker has taken the job over; let it through, and do nothing more.
        """
        self._done += n
        self._failed += failed
        self._note = note if note is not None else self._note
        self._unwritten = True
        self._beat()
        if time.monotonic() >= self._next:
            self._report()

    def checkpoint(self, value: Any, fingerprint: str) -> None:
        """Write where the job goes on when it runs again with the same arguments, and everything that was counted.

        Raises:
            JobCancelled, LeaseLost: as `advance`.
            TypeError, ValueError: the value is no JSON.
        """
        self._beat()
        where = {"value": value, "done": self._done, "failed": self._failed, "fingerprint": fingerprint}
        self._report({"checkpoint": encode(where).decode()})

    def _report(self, more: Mapping[str, str] | None = None) -> None:
        match self.flush(more):
            case "cancelled":
                raise JobCancelled(f"the message {self._id}, or its batch, was cancelled")
            case "lost":
                raise LeaseLost(
                    f"{self._id}: another worker has taken this job over, since its lease was over; end here, and do nothing "
                    "more. Report progress more often, or raise stall_after"
                )

    def flush(self, more: Mapping[str, str] | None = None) -> Answer:
        """Write what was counted. Returns whether the job may go on; where Redis does not answer, it may."""
        try:
            with closing(self._store.call("report", self._arguments(more or {}))) as call:
                answer = call.answer(again=False)  # the next report has all of it
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
        if self._counts and not self._has_begun:  # an attempt begins
            fields |= {"started_at": now, **self._first}
        fields |= {name: value for name in ("total", "note") if (value := getattr(self, f"_{name}")) is not None}
        request = self._holder.request if self._holder else None
        claim = [request.claim, request.token] if request else ["", ""]
        lease, batch = (self._holder.lease, self._holder.batch_id) if self._holder else (0.0, "")
        keep = milliseconds(self._keep)
        pairs = [one for pair in fields.items() for one in pair]
        return [self._id, keep, milliseconds(lease), *claim, batch, *pairs]

    def close(self) -> None:
        """Write what is left, if anything was reported since."""
        if self._unwritten:
            self.flush()
