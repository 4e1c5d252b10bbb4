"""`Pause`: why something is paused, since when, by whom, and until when."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from conventions.core.error_text import clean
from conventions.core.json_fields import from_json
from conventions.core.time_units import LONGEST

LONGEST_REASON = 2000  # characters


@dataclass(frozen=True, slots=True)
class Pause:
    """Why something is paused, since when, and until when. Times are aware, in UTC."""

    reason: str
    actor: str
    since: datetime
    until: datetime | None = None

    @classmethod
    def made(cls, reason: str, actor: str, now: datetime, until: datetime | None) -> Self:
        """A pause from now on.

        Raises:
            ValueError: there is no reason, or it is too long; or `until` has no time zone, is not in the future, or is
                too far away.
        """
        if not (why := clean(reason).strip()):
            raise ValueError("say why it is paused")
        if len(why) > LONGEST_REASON:
            raise ValueError(f"a reason has at most {LONGEST_REASON:,} characters")
        if until is not None:
            _check_end(until, now)
        return cls(why, actor, now, until and until.astimezone(UTC))

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """Read its JSON. Raises: ValueError, TypeError."""
        found = cls(**from_json(cls, raw, "since", "until"))
        if found.since.tzinfo is None or (found.until is not None and found.until.tzinfo is None):
            raise ValueError("a time has no zone")
        if not isinstance(found.reason, str) or not isinstance(found.actor, str):
            raise TypeError("not a pause")
        return found

    def holds(self, now: datetime) -> bool:
        """Whether it is not over."""
        return self.until is None or now < self.until

    @property
    def last_moment(self) -> datetime | None:
        """The last second of the pause: a slot exactly at its end runs."""
        return None if self.until is None else self.until - timedelta(seconds=1)

    @property
    def facts(self) -> dict[str, Any]:
        """Reason and end, for the audit."""
        return {"reason": self.reason, "until": None if self.until is None else self.until.isoformat()}


def replaced_facts(pause: Pause | None) -> dict[str, Any] | None:
    """By whom, why and until when: of the pause that another one takes the place of, for the audit."""
    return None if pause is None else {"actor": pause.actor, **pause.facts}


def _check_end(until: datetime, now: datetime) -> None:
    if until.tzinfo is None:
        raise ValueError("the end of the pause has no time zone; pass an aware datetime")
    if until <= now:
        raise ValueError("the end of the pause must lie in the future")
    if until - now > LONGEST:  # beyond it a schedule may have no next slot
        raise ValueError("the end of the pause is too far away; without one it lasts until somebody resumes it")
