"""What the claim script answers for one message."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from conventions.core.error_text import without_values
from conventions.core.errors import IdempotencyConflict
from conventions.idempotency.interrupted_start import InterruptedStart, interrupted_starts


@dataclass(frozen=True, slots=True)
class Granted:
    """The claim is ours; a higher `fence` is a later holder. `starts` without an outcome, this one included.

    `interrupted`: earlier starts, also of other attempts, that the journal lacks.
    """

    fence: int
    starts: int
    interrupted: tuple[InterruptedStart, ...] = ()


@dataclass(frozen=True, slots=True)
class Poison:
    """The claim is ours, but its job ended without an outcome so often that it must not run again.

    `why` is what is known of the last end of its process, empty where that is nothing.
    """

    fence: int
    starts: int
    why: str = ""
    interrupted: tuple[InterruptedStart, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The job was finished before, by the message `message_id`; `follow_ups_sent`: what follows it was sent, too."""

    result: Any
    message_id: str
    follow_ups_sent: bool
    interrupted: tuple[InterruptedStart, ...] = ()


@dataclass(frozen=True, slots=True)
class Parked:
    """The message waits in its queue for `wait` seconds; it is not ours any more."""

    wait: float


@dataclass(frozen=True, slots=True)
class Busy:
    """As `Parked`, where the broker is elsewhere, so that the caller must make it wait."""

    wait: float


@dataclass(frozen=True, slots=True)
class Conflict:
    """The key was used with another payload by the message `message_id`."""

    message_id: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The message was cancelled before it ran."""

    interrupted: tuple[InterruptedStart, ...] = ()


@dataclass(frozen=True, slots=True)
class Dead:
    """The message is a dead letter already, because of `error`; empty when that is not known any more."""

    error: str


@dataclass(frozen=True, slots=True)
class Superseded:
    """Another copy of the message is further on."""


@dataclass(frozen=True, slots=True)
class TooOld:
    """The message was sent before what is remembered: nobody can tell whether it ran."""


@dataclass(frozen=True, slots=True)
class Stale:
    """The message is in other hands, or gone: nothing here may touch it."""


@dataclass(frozen=True, slots=True)
class Alone:
    """The message is back in its queue, and will not go to a process together with others."""


Answer: TypeAlias = (
    Granted | Poison | Done | Parked | Busy | Conflict | Cancelled | Dead | Superseded | TooOld | Stale | Alone
)


def _kept(kept: tuple[bytes, ...]) -> list[tuple[InterruptedStart, ...]]:
    return [interrupted_starts(one) for one in kept]


_ANSWERS: dict[bytes, Callable[..., Answer]] = {
    b"granted": lambda fence, starts, *kept: Granted(int(fence), int(starts), *_kept(kept)),
    b"poison": lambda fence, starts, why, *kept: Poison(
        int(fence), int(starts), why.decode(errors="replace"), *_kept(kept)
    ),
    b"done": lambda result, message_id, followed, *kept: Done(
        json.loads(result), message_id.decode(), followed == b"1", *_kept(kept)
    ),
    b"parked": lambda wait: Parked(int(wait) / 1000),
    b"busy": lambda wait: Busy(int(wait) / 1000),
    b"conflict": lambda message_id: Conflict(message_id.decode()),
    b"cancelled": lambda *kept: Cancelled(*_kept(kept)),
    b"dead": lambda error: Dead(json.loads(error)),
    b"superseded": Superseded,
    b"too_old": TooOld,
    b"stale": Stale,
    b"alone": Alone,
}


def answers_of(replies: Sequence[Sequence[Any]]) -> list[Answer]:
    """The answers of one call of the script."""
    return [_ANSWERS[name](*parts) for name, *parts in replies]


def conflict(task: str, key: str, message_id: str) -> IdempotencyConflict:
    """The error of a message whose key is that of another one with other arguments."""
    return without_values(
        IdempotencyConflict(
            f"{task}: key {key} was used by message {message_id} with other arguments; "
            "use another idempotency_key, or name the differing argument in idempotent_on"
        )
    )
