"""`Facts`: what is known of a job."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

from conventions.progress.reporter import Progress

Open: TypeAlias = Literal["unsent", "queued", "delayed", "retrying", "parked", "running", "unknown"]
Ended: TypeAlias = Literal[
    "succeeded",
    "duplicate",
    "partly failed",
    "dead",
    "discarded",
    "cancelled",
    "revoked",
    "expired",
    "purged",
    "lost",
]
State: TypeAlias = Open | Ended
ENDED: frozenset[State] = frozenset(get_args(Ended))
WELL: frozenset[State] = frozenset(["succeeded", "duplicate"])


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a job at one moment. What is not known is `None`.

    Attributes:
        id: of its message.
        state: one of these words.

            `unsent`: in the outbox, not sent yet. `queued`: in its queue, or read by a worker that has not begun it, or cancelled and not removed yet. `delayed`: not due yet.
            `retrying`: an attempt failed, and the next one is not due yet. `parked`: its idempotency key is in use. `running`.
            `succeeded`. `duplicate`: another message had done the same job, and nothing ran. `partly failed`: a batch that has ended, of which
            some chunks are dead. `dead`: in the dead letters.
            `discarded`: a dead letter that a person has closed. `cancelled`, `revoked`, `expired`, `purged`: it was kept from running.
            `lost`: its message disappeared from the broker. `unknown`: nothing is known of it, see `waits_because`.
        task: the name of its task.
        queue: where it waits, or waited.
        actor: who sent it.
        key: its idempotency key.
        attempts: how many attempts have begun, since it was sent or last redriven.
        redrives: how often it was sent again as a dead letter.
        enqueued_at: when it was sent.
        due_at: of a waiting one, the earliest moment at which it may run; of a cancelled one, when that would have been.
        started_at: of the last attempt.
        ended_at: when the last attempt ended.
        worker: of the last attempt that ended.
        runtime: of that one, in seconds.
        error: the class of the error with which the last attempt ended, if it failed.
        error_message: its text.
        traceback: its traceback.
        has_result: whether the result is known.
        result: what `run` returned, as JSON gives it back; kept for `CONVENTIONS_KEEP_RESULT_FOR`.
        progress: how far it is, if it has reported any.
        is_batch: whether it is a batch, which ends with its last chunk.
        waits_because: why it does not run now, as a sentence; empty for one that runs or has ended.
    """

    id: str
    state: State
    task: str | None = None
    queue: str | None = None
    actor: str | None = None
    key: str | None = None
    attempts: int = 0
    redrives: int = 0
    enqueued_at: datetime | None = None
    due_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    worker: str | None = None
    runtime: float | None = None
    error: str | None = None
    error_message: str | None = None
    traceback: str | None = None
    has_result: bool = False
    result: Any = None
    progress: Progress | None = None
    is_batch: bool = False
    waits_because: str = ""
