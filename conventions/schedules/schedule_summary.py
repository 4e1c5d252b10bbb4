"""`ScheduleSummary`: a schedule as people see it, on the command line and in Flower alike (R10)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from conventions.execution.application import Application
from conventions.schedules.redbeat_entry import definition_of
from conventions.schedules.schedule import Schedule
from conventions.schedules.schedule_state import State
from conventions.schedules.schedule_store import Schedules

LATE = timedelta(seconds=5)  # beat looks every 5 s when nothing is due


@dataclass(frozen=True, slots=True)
class ScheduleSummary:
    """One schedule of the file, with its state in Redis.

    Attributes:
        listed: the entry of the file.
        state: its state in Redis.
        now: the server's clock at the time of reading.
        zone: the app's time zone, used for all times here.
    """

    listed: Schedule
    state: State
    now: datetime
    zone: ZoneInfo

    @property
    def next_run_at(self) -> datetime | None:
        """The next slot. `None` if it is paused without an end, or if there is no next slot."""
        pause = self.state.pause
        if pause is not None and pause.until is None:
            return None
        # After a step back of the clock, the cursor is ahead of it.
        after = [self.now, self.state.cursor, pause.last_moment if pause else None]
        return self.listed.when.next_slot(max(one for one in after if one is not None), self.zone)

    @property
    def last_run_at(self) -> datetime | None:
        """When its last message was sent, to the second."""
        return self.local(self.state.last_run.sent_at) if self.state.last_run else None

    @property
    def lateness(self) -> float | None:
        """Seconds between the last sent slot and its send. `None` if it was sent by hand, or never."""
        return self.state.last_run.lateness if self.state.last_run else None

    @property
    def overdue(self) -> float | None:
        """Seconds that an unsent slot has been due; beat should have sent it. `None` when there is none."""
        pause, cursor = self.state.pause, self.state.cursor
        if cursor is None or (pause is not None and (pause.until is None or pause.until > self.now)):
            return None
        since = cursor if pause is None or pause.last_moment is None else max(cursor, pause.last_moment)
        send = self.listed.due(since, self.now, self.zone).send
        waits = self.now - send[0] if send else timedelta()
        return waits.total_seconds() if waits > LATE else None

    @property
    def other_version(self) -> bool:
        """Whether the leading beat has read something else than this file says, as during a deploy."""
        found = self.state.definition
        return found is not None and found != definition_of(self.listed, self.zone)

    @property
    def other_zone(self) -> str | None:
        """The time zone of the leading beat, if it is not the one of this process."""
        planned = self.state.definition["schedule"]["timezone"] if self.state.definition else None
        return None if planned in (None, str(self.zone)) else str(planned)

    @property
    def is_new(self) -> bool:
        """Whether no beat has seen it yet."""
        return self.state.definition is None or self.state.gone

    def local(self, moment: datetime | None) -> datetime | None:
        """A time in the app's zone, to the second."""
        return moment and moment.astimezone(self.zone).replace(microsecond=0)


def summaries_of(app: Application, listed: Iterable[Schedule]) -> list[ScheduleSummary]:
    """The present state of these schedules, in one round trip. Raises: RedisError."""
    entries = list(listed)
    now, states = Schedules(app.store).read([one.name for one in entries], definitions=True)
    zone = ZoneInfo(app.settings.timezone)
    return [ScheduleSummary(one, states[one.name], now, zone) for one in entries]
