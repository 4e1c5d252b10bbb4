"""`ScheduleView`: a schedule as people see it, the same on the command line and in Flower (R10)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from conventions.execution.application import Application
from conventions.schedules.redbeat_entry import definition_of
from conventions.schedules.schedule import Schedule
from conventions.schedules.schedule_state import State
from conventions.schedules.schedule_store import Schedules

LATE = timedelta(seconds=5)  # beat looks as often when nothing is due


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """One schedule of the file, with what Redis knows of it.

    Attributes:
        listed: what the file says.
        state: what Redis knows.
        now: the server's clock when it was asked.
        zone: the app's, in which all times here are.
    """

    listed: Schedule
    state: State
    now: datetime
    zone: ZoneInfo

    @property
    def next_run_at(self) -> datetime | None:
        """The next slot; `None` while it is paused until somebody resumes it, or when there is none."""
        pause = self.state.pause
        if pause is not None and pause.until is None:
            return None
        # The cursor is ahead of a clock that stepped back.
        after = [self.now, self.state.cursor, pause.last_moment if pause else None]
        return self.listed.when.next_slot(max(one for one in after if one is not None), self.zone)

    @property
    def last_run_at(self) -> datetime | None:
        """When its last message was sent, to the second."""
        return self.local(self.state.last_run.sent_at) if self.state.last_run else None

    @property
    def lateness(self) -> float | None:
        """Seconds between the last slot that was sent and its sending; `None` when it was sent by hand, or never."""
        return self.state.last_run.lateness if self.state.last_run else None

    @property
    def overdue(self) -> float | None:
        """Seconds for which a slot waits to be sent, which beat should have done; `None` when none does."""
        pause, cursor = self.state.pause, self.state.cursor
        if cursor is None or (pause is not None and (pause.until is None or pause.until > self.now)):
            return None
        since = cursor if pause is None or pause.last_moment is None else max(cursor, pause.last_moment)
        send = self.listed.due(since, self.now, self.zone).send
        waits = self.now - send[0] if send else timedelta()
        return waits.total_seconds() if waits > LATE else None

    @property
    def other_version(self) -> bool:
        """Whether the beat that leads has read something else than this file says, as during a deploy."""
        found = self.state.definition
        return found is not None and found != definition_of(self.listed, self.zone)

    @property
    def other_zone(self) -> str | None:
        """The zone in which the beat that leads plans, where that is not the one of this process."""
        planned = self.state.definition["schedule"]["timezone"] if self.state.definition else None
        return None if planned in (None, str(self.zone)) else str(planned)

    @property
    def is_new(self) -> bool:
        """Whether no beat has seen it yet."""
        return self.state.definition is None or self.state.gone

    def local(self, moment: datetime | None) -> datetime | None:
        """A time in the app's zone, to the second."""
        return moment and moment.astimezone(self.zone).replace(microsecond=0)


def views_of(app: Application, listed: Iterable[Schedule]) -> list[ScheduleView]:
    """The schedules of an application as they are now, in one round trip. Raises: RedisError."""
    entries = list(listed)
    now, states = Schedules(app.store).read([one.name for one in entries], definitions=True)
    zone = ZoneInfo(app.settings.timezone)
    return [ScheduleView(one, states[one.name], now, zone) for one in entries]
