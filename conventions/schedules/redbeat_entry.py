"""`RedBeatEntry`: a schedule in RedBeat's layout, for RedBeat's tools, and with the interface of Celery's entries."""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from celery.schedules import BaseSchedule
from redbeat.schedulers import RedBeatSchedulerEntry

from conventions.execution.application import Application
from conventions.schedules.schedule import Schedule
from conventions.schedules.schedule_store import Schedules
from conventions.schedules.slots import When

NO_SLOT = 60.0  # seconds until the next look at a schedule without a known next slot


class SlotSchedule(BaseSchedule):
    """`cron` or `every` in Celery's interface, in one time zone."""

    def __init__(self, when: When, zone: tzinfo, app: Application) -> None:
        super().__init__(app=app)
        self.when = when
        self.zone = zone

    def remaining_estimate(self, last_run_at: datetime) -> timedelta | None:
        """Time left until the first slot after `last_run_at`; `None` if there is none."""
        slot = self.when.next_slot(last_run_at, self.zone)
        return None if slot is None else slot.astimezone(UTC) - datetime.now(UTC)

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        """Whether a slot has passed since `last_run_at`, and the seconds until the next look."""
        left = self.remaining_estimate(last_run_at)
        if left is not None and left <= timedelta(0):
            left = self.remaining_estimate(datetime.now(UTC))
            return True, 0.0 if left is None else left.total_seconds()
        return False, NO_SLOT if left is None else left.total_seconds()


class RedBeatEntry(RedBeatSchedulerEntry):
    """One schedule in RedBeat's layout; `last_run_at` is its cursor."""

    def __init__(self, listed: Schedule, cursor: datetime, zone: tzinfo, app: Application) -> None:
        super().__init__(
            name=listed.name,
            task=listed.task.name,
            schedule=SlotSchedule(listed.when, zone, app),
            kwargs=listed.shown_arguments,
            last_run_at=cursor,
            app=app,
        )
        self.listed = listed

    @property
    def next_slot(self) -> datetime | None:
        """The slot after the cursor; `None` if there is none."""
        slot: datetime | None = self.schedule.when.next_slot(self.last_run_at, self.schedule.zone)
        return slot

    @property
    def score(self) -> int:
        """The next slot in seconds since the epoch; -1 if there is none, which RedBeat skips."""
        return -1 if self.next_slot is None else int(self.next_slot.timestamp())

    @property
    def definition(self) -> dict[str, Any]:
        """The definition in RedBeat's form. It is for reading only: the list in the file decides."""
        return definition_of(self.listed, self.schedule.zone)

    def save(self) -> "RedBeatEntry":
        """Write the definition, and the cursor if there is none."""
        Schedules(self.app.store).enter(self.name, self.definition, self.last_run_at, self.next_slot)
        return self


def definition_of(listed: Schedule, zone: tzinfo) -> dict[str, Any]:
    """What a file says of a schedule, with RedBeat's names where RedBeat has them."""
    return {
        "name": listed.name,
        "task": listed.task.name,
        "args": [],
        "kwargs": listed.shown_arguments,
        "options": {},
        "enabled": True,
        "schedule": {"__type__": "slots", "when": str(listed.when), "timezone": str(zone)},
        "rules": listed.rules,
    }
