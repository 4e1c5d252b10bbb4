"""`BatchSummary`: what `finish`, commands and pages are told of a batch, and how it is made of what Redis has."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conventions.core.errors import CannotOpen
from conventions.core.sealed_mark import is_sealed_text
from conventions.progress.reporter import Progress
from conventions.progress.sealed_notes import with_open_note
from conventions.sealing.payload_keys import PayloadKeys
from conventions.sealing.sealed_text import RESULT, chunk_owner, open_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """The argument of `finish`. `done`, `failed` and `total` count items, `chunks` counts chunks.

    `ended_chunks`: the number of chunks with an outcome. `failed_chunks`: the indexes of dead chunks. `cancelled_chunks`: the
    indexes of chunks that were cancelled, revoked or expired. `returns`: the results of `process` in the order of the chunks,
    without `None`. `actor`: who sent the batch. `created_at`: when cutting began (seconds since the epoch). `progress`: its rate,
    its remaining time and its last report.
    """

    id: str
    task: str
    state: str
    total: int | None
    done: int
    failed: int
    chunks: int | None
    failed_chunks: list[int] = field(default_factory=list)
    cancelled_chunks: list[int] = field(default_factory=list)
    returns: list[Any] = field(default_factory=list)
    actor: str = field(default="system", compare=False)
    created_at: float = field(default=0.0, compare=False)
    progress: Progress = field(default_factory=lambda: Progress(""), compare=False)
    ended_chunks: int = field(default=0, compare=False)

    @property
    def percent(self) -> int:
        """floor(100 x done / total); 0 while the total is unknown."""
        if self.total is None:
            return 0
        # While the splitter runs, the total comes from `count` and may be too small.
        return 100 if self.total == 0 else min(100, 100 * self.done // self.total)

    @property
    def is_partial(self) -> bool:
        """Whether the batch is done with failures, also while its dead chunks are sent again."""
        return self.state == "done" and bool(self.failed_chunks or self.failed)


def summary_of(id: str, keys: PayloadKeys | None, *found: Any) -> BatchSummary | None:  # noqa: A002
    """The summary of what Redis has of a batch: its fields, its counts, its failed chunks, how many have ended, and their results where they are read.

    `None`: there is none, or nobody can read it. Raises: CannotOpen.
    """
    try:
        return _summary(id, keys, found)
    except CannotOpen:
        raise
    except (
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
    ):  # another program wrote it; the other batches are still shown
        logger.exception("what Redis has of the batch %s cannot be read", id)
        return None


def _summary(id: str, keys: PayloadKeys | None, found: tuple[Any, ...]) -> BatchSummary | None:  # noqa: A002
    fields, counts, failed, ended, *more = found
    returns: dict[bytes, bytes] = more[0] if more else {}
    if b"state" not in fields:
        return None
    progress = with_open_note(keys, Progress.read(id, counts))
    sealed = is_sealed_text(fields.get(b"arguments", b"").decode(errors="replace"))
    return BatchSummary(
        id=id,
        task=fields[b"task"].decode(),
        state=fields[b"state"].decode(),
        total=progress.total,
        done=progress.done,
        failed=progress.failed,
        chunks=int(fields[b"chunks"]) if b"chunks" in fields else None,
        failed_chunks=_indexes(failed, b"dead"),
        cancelled_chunks=_indexes(failed, b"cancelled"),
        actor=fields.get(b"actor", b"system").decode(),
        created_at=float(fields[b"created_at"]),
        progress=progress,
        ended_chunks=ended,
        returns=[
            _returned(json.loads(returns[index]), keys, chunk_owner(id, int(index)), sealed=sealed)
            for index in sorted(returns, key=int)
        ],
    )


def _indexes(failed: Mapping[bytes, bytes], outcome: bytes) -> list[int]:
    return sorted(int(index) for index, found in failed.items() if found == outcome)


def _returned(value: Any, keys: PayloadKeys | None, owner: str, *, sealed: bool) -> Any:
    try:
        return open_json(keys, value, RESULT, owner)
    except CannotOpen:
        if sealed:
            raise
        return value  # a text of a batch that is not sealed may begin like a sealed one
