"""The state of one schedule: its cursor, its pause, and what became of its slots."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypeAlias

from conventions.core.json_fields import from_json
from conventions.pauses.pause import Pause
from conventions.schedules.catch_up import Passed

What: TypeAlias = Literal["sent", "skipped", "missed", "paused", "failed"]


@dataclass(frozen=True, slots=True)
class Run:
    """One line of a schedule's history: a message that was sent, or slots that were not sent.

    Attributes:
        planned_at: the slot, or the last one of several; `None` if sent by hand. Times are aware, in UTC.
        sent_at: when it was sent, or when it was decided not to send it.
        id: of the message; empty if there is none.
        actor: who caused it.
        what: `sent`; `skipped`: an earlier run had not ended; `missed`: it was too late; `paused`; `failed`: its
            message could not be made.
        count: how many slots.
        first_at: the first one of several slots.
        note: why: the earlier run, or the error.
    """

    planned_at: datetime | None
    sent_at: datetime
    id: str
    actor: str
    what: What = "sent"
    count: int = 1
    first_at: datetime | None = None
    note: str = ""

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """Read its JSON."""
        return cls(**from_json(cls, raw, "planned_at", "sent_at", "first_at"))

    @classmethod
    def without_message(cls, what: What, passed: Passed, at: datetime, actor: str, note: str = "") -> Self:
        """A line for slots that are not sent."""
        first = passed.first.astimezone(UTC) if passed.count > 1 else None
        return cls(passed.last.astimezone(UTC), at, "", actor, what, passed.count, first, note)

    @property
    def lateness(self) -> float | None:
        """Seconds between the slot and its send; `None` if it was sent by hand or not at all."""
        sent = self.what == "sent" and self.planned_at is not None
        return (self.sent_at - self.planned_at).total_seconds() if sent and self.planned_at else None


@dataclass(frozen=True, slots=True)
class State:
    """The state of one schedule.

    Attributes:
        cursor: the latest slot that was sent or given up; `None` before a beat has seen the schedule.
        pause: why it does not run now.
        last_run: the last message that was sent.
        fault: why the last try to send failed.
        begun: a slot that may be under way.
        gone: whether it was removed in the last minutes, if asked for.
        definition: what the leading beat has read from its file, if asked for.
    """

    cursor: datetime | None
    pause: Pause | None
    last_run: Run | None
    fault: str | None = None
    begun: datetime | None = None
    gone: bool = False
    definition: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Lead:
    """The lock of the leading beat: its key, the token of its holder, and its time-out in seconds."""

    key: str
    token: str
    seconds: float


class LeadLost(Exception):
    """Another beat leads."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Whether to send a message.

    Attributes:
        since: the time of the first try, perhaps by another beat; `None`: do not send it.
        live_id: the reason not to send: an earlier run that has not ended.
        just: the same: id and actor of a run by hand in the same moment.
    """

    since: datetime | None = None
    live_id: str | None = None
    just: tuple[str, str] | None = None


def meta_of(slot: datetime) -> str:
    """RedBeat's `meta` field, in its own JSON form."""
    moment = slot.astimezone(UTC)
    parts = {part: getattr(moment, part) for part in ("year", "month", "day", "hour", "minute", "second")}
    return json.dumps({"last_run_at": {"__type__": "datetime", **parts, "microsecond": 0, "timezone": "UTC"}})
