"""A beat scheduler in this process, against a real Redis, with a clock that the test moves."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import celery
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from conventions import ScheduledTask
from conventions.app import ConventionsApp
from conventions.schedules.cron import cron
from conventions.schedules.schedule import Schedule, planned_date
from conventions.schedules.schedule_store import Schedules
from conventions.schedules.scheduler import Scheduler
from conventions.storage.redis_store import Store
from tests.workers import application


class Note(ScheduledTask):
    """Note a day."""

    name = "test_beat.Note"

    def run(self, day: date) -> None: ...


class Clock:
    """The time that beats in this test see."""

    def __init__(self, text: str) -> None:
        self.now = datetime.fromisoformat(text).astimezone(UTC)

    def moment(self, _reply: Any) -> datetime:
        """In place of the server's clock."""
        return self.now

    def to(self, text: str) -> None:
        """Move to a moment, given with its offset."""
        self.now = datetime.fromisoformat(text).astimezone(UTC)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock at 08:00 in Tokyo on a Wednesday."""
    clock = Clock("2026-11-25T08:00:00+09:00")
    monkeypatch.setattr(Schedules, "_moment", lambda _self, reply: clock.moment(reply))
    return clock


@pytest.fixture
def app(store: Store, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[ConventionsApp]:
    """An application on the store of the test, with a database and without a schedule of its own."""
    with application(broker_url=store.url, key_prefix=store.prefix, database_url=new_database(tmp_path)) as app:
        yield app


Beat: TypeAlias = Callable[..., Scheduler]
Sent: TypeAlias = list[dict[str, Any]]


@pytest.fixture
def beat(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beat]:
    """Start a beat with these schedules; all of them end with the test."""
    started: list[Scheduler] = []

    def start(*listed: Schedule) -> Scheduler:
        monkeypatch.setattr("conventions.schedules.scheduler.load_schedule", lambda _app: listed)
        monkeypatch.setattr(type(app), "schedule_address", "tests:SCHEDULE")
        scheduler = Scheduler(app)
        started.append(scheduler)
        return scheduler

    yield start
    for scheduler in started:
        with contextlib.suppress(RedisConnectionError):
            scheduler.close()
    if "redbeat_redis" in vars(app):  # RedBeat never closes it
        vars(app)["redbeat_redis"].close()


@pytest.fixture
def sent(app: ConventionsApp) -> Iterator[Sent]:
    """The messages that leave, in order; each is still sent."""
    found: Sent = []

    def note(sender: str, body: Any, headers: dict[str, Any], **_: Any) -> None:
        found.append(headers | {"kwargs": body[1]})

    celery.signals.before_task_publish.connect(note)
    yield found
    celery.signals.before_task_publish.disconnect(note)


TOKYO = ZoneInfo("Asia/Tokyo")
DAILY = Schedule("daily", cron("0 9 * * *"), Note, {"day": planned_date})


def days(sent: Sent) -> list[str]:
    """The day argument of each message."""
    return [message["kwargs"]["day"] for message in sent]


def raising(error: Exception) -> Callable[..., Any]:
    """A function that fails."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail
