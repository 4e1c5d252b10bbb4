"""`RetryPolicy`: which errors are retried, how often, and after how long. Pure arithmetic, no I/O.

The policy counts the attempts of one message for each kind of error (R15, R16). It receives the counts of all errors so far,
with the present one, and answers with a `Decision`.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from conventions.core.errors import (
    BusinessError,
    CredentialInPayload,
    IdempotencyConflict,
    LeaseLost,
    PayloadError,
    PermissionDenied,
    TransactionRefused,
    TransactionRepeated,
)
from conventions.core.network_errors import is_network_error

_HOPELESS = (
    PayloadError,
    CredentialInPayload,
    IdempotencyConflict,
    LeaseLost,
    PermissionDenied,
    TransactionRefused,
    TransactionRepeated,
)


class ErrorKind(StrEnum):
    """How the policy treats an error."""

    NEVER = "never"
    NETWORK = "network"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Decision:
    """The policy's answer. `wait` is in seconds; `None` means that the job is not retried."""

    kind: ErrorKind
    wait: float | None
    reason: str

    @property
    def retry(self) -> bool:
        """Whether the job gets another attempt."""
        return self.wait is not None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failures of a task are retried.

    >>> [RetryPolicy(jitter=0).wait_after(n) for n in (1, 2, 3, 4, 5, 6)]
    [2.0, 4.0, 8.0, 16.0, 32.0, 60.0]

    Args:
        attempts: the largest number of attempts, with the first one (R15).
        first_wait: the wait before the second attempt, seconds or a timedelta.
        max_wait: the longest wait, seconds or a timedelta.
        factor: each wait is this many times the one before.
        jitter: the share of a wait, 0 to 1, by which it varies at random; `first_wait` and `max_wait` still hold.
        network_attempts: the largest number of attempts that end with network errors.
        never: errors that are not retried.
        on: errors that are retried; all others are treated like `never`.

    Raises:
        ValueError: a number is out of its range; the message names the argument.
    """

    attempts: int = 5
    first_wait: float | timedelta = 2.0
    max_wait: float | timedelta = 60.0
    factor: float = 2.0
    jitter: float = 0.25
    network_attempts: int = 10
    never: tuple[type[BaseException], ...] = (BusinessError,)
    on: tuple[type[BaseException], ...] = (Exception,)

    def __post_init__(self) -> None:
        for name in ("first_wait", "max_wait"):
            value = getattr(self, name)
            seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
            object.__setattr__(self, name, seconds)
        for name in ("never", "on"):
            kinds = getattr(self, name)
            if not isinstance(kinds, tuple) or not all(isinstance(kind, type) for kind in kinds):
                raise ValueError(f"RetryPolicy: {name} is a tuple of exception classes; write {name}=(ValueError,)")
        for name, least in (("attempts", 1), ("network_attempts", 1), ("first_wait", 0), ("factor", 1), ("jitter", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"RetryPolicy: {name} must be at least {least}, not {getattr(self, name)!r}")
        if self.jitter > 1:
            raise ValueError(f"RetryPolicy: jitter is a share from 0 to 1, not {self.jitter!r}")
        if not math.isfinite(self._longest + self.factor):
            raise ValueError("RetryPolicy: max_wait and factor must be finite numbers")
        if self._longest < self._first:
            raise ValueError(f"RetryPolicy: max_wait ({self._longest} s) is below first_wait ({self._first} s)")

    @property
    def _first(self) -> float:
        return float(self.first_wait)  # type: ignore[arg-type]  # made a number in __post_init__

    @property
    def _longest(self) -> float:
        return float(self.max_wait)  # type: ignore[arg-type]  # made a number in __post_init__

    @property
    def window(self) -> timedelta:
        """The longest time that all waits of one message can take together."""
        return timedelta(seconds=(max(self.attempts, self.network_attempts) - 1) * self._longest)

    def kind_of(self, error: BaseException) -> ErrorKind:
        """Sort an error into never retried, network, or other."""
        if isinstance(error, (*self.never, *_HOPELESS)) or not isinstance(error, self.on):
            return ErrorKind.NEVER
        return ErrorKind.NETWORK if is_network_error(error) else ErrorKind.OTHER

    def limit_for(self, kind: ErrorKind) -> int:
        """How many attempts may end with this kind of error. 1: the first such attempt is the last one."""
        return {ErrorKind.NEVER: 1, ErrorKind.NETWORK: self.network_attempts, ErrorKind.OTHER: self.attempts}[kind]

    def wait_after(self, attempts_made: int, chance: float = 0.5) -> float:
        """Seconds to wait after this many attempts. `chance` in [0, 1) picks the place within the jitter.

        Exponential back-off with bounded jitter: `first_wait * factor ** (attempts_made - 1)`, varied by
        `±jitter`, then cut to `[first_wait, max_wait]`.
        """
        try:
            wait = self._first * self.factor ** (attempts_made - 1)
        except OverflowError:
            wait = self._longest
        wait = min(wait, self._longest) * (1 + self.jitter * (2 * chance - 1))
        return self.within_limits(wait)

    def within_limits(self, wait: float) -> float:
        """The wait that was asked for, in seconds, cut to the limits of this policy."""
        return min(max(wait, self._first), self._longest)

    def decide(
        self,
        error: BaseException,
        counts: Mapping[str, int],
        *,
        overruled: bool | None = None,
        chance: float | None = None,
        now: datetime | None = None,
    ) -> Decision:
        """Decide what follows a failed attempt.

        Args:
            error: the error that ended the attempt.
            counts: attempts that ended with an error so far, by kind, with the present one.
            overruled: the answer of the task's `should_retry`; `None` when it has none.
            chance: a number in [0, 1) in place of a random one.
            now: in place of the clock, for a `Retry-After` that is a date.
        """
        kind = self.kind_of(error)
        limit = self.limit_for(kind)
        if overruled is False:
            return Decision(kind, None, "should_retry said no")
        if overruled is None and counts.get(kind, 1) >= limit:
            why = "never retried" if kind is ErrorKind.NEVER else f"attempt {counts.get(kind, 1)} of {limit}"
            return Decision(kind, None, why)
        made = max(1, sum(counts.values()))
        wait = self.wait_after(made, random.random() if chance is None else chance)
        asked = retry_after(error, now or datetime.now(UTC))
        if asked is not None:
            wait = self.within_limits(asked)
        why = "should_retry said yes" if overruled else f"attempt {counts.get(kind, 1)} of {limit}"
        return Decision(kind, wait, why)


def retry_after(error: BaseException, now: datetime) -> float | None:
    """Seconds that a 429 or 503 answer asked to wait (RFC 9110, 10.2.3), or `None`."""
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    headers = getattr(response, "headers", None)
    if status not in (429, 503) or headers is None:
        return None
    value = str(headers.get("Retry-After", "")).strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # a server may answer anything
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())
