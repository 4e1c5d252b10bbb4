"""The overview: rates of queues, marks, and what is left out."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.queue_level import QueueLevel
from conventions.metrics.counts import Counts
from conventions.metrics.depths import Depths
from conventions.metrics.event_counter import EventCounter
from conventions.now.overview import Flow, Overview, overview_of
from conventions.now.overview_json import overview_json
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import Database
from tests.recorded import append, entry, event
from tests.workers import application


class Mail(ImmediateTask):
    """A task."""

    queue_name = "mail"
    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Do nothing."""


def ended(app: ConventionsApp, minutes_ago: int, number: int, **values: Any) -> None:
    """So many jobs ended so many minutes ago, each with an id of its own."""
    now = Counts(app.store).this_minute() * 60_000
    name = f"{minutes_ago}-{values}"
    some = (event(f"{name}-{n}", **{"task": Mail.name, **values}) for n in range(number))
    append(app.store, *(entry(one, at=now - minutes_ago * 60_000) for one in some))
    EventCounter(app.store).count_all()


def depth(app: ConventionsApp, minutes_ago: int, ready: int) -> None:
    """The queue was so long at the end of a minute."""
    minute = Counts(app.store).this_minute() - minutes_ago
    app.store.redis.hset(app.store.key("counts", "depth", str(minute)), mapping={"mail": ready})


def flow(app: ConventionsApp) -> Flow | None:
    """That of the queue."""
    return overview_of(app).flows.get("mail")


def test_how_fast_a_queue_fills_and_empties(app: ConventionsApp) -> None:
    """What came is what went, and by how much it is longer; both over the last two full minutes."""
    assert flow(app) is None  # nobody has looked yet
    Mail.enqueue_many([{"number": number} for number in range(30)])
    depth(app, 3, 150)
    depth(app, 1, 30)
    ended(app, 1, 120)
    ended(app, 2, 120)
    found = flow(app)
    assert found is not None
    assert (found.goes, found.comes) == (2.0, 1.0)
    assert found.empty_in == pytest.approx(30)


def test_a_queue_that_grows_is_never_empty(app: ConventionsApp) -> None:
    """Nor one that nobody works on."""
    Mail.enqueue_many([{"number": number} for number in range(30)])
    depth(app, 3, 0)
    depth(app, 1, 30)
    found = flow(app)
    assert found is not None
    assert (found.goes, found.comes, found.empty_in) == (0.0, 0.25, None)


def test_a_queue_of_functions(app: ConventionsApp) -> None:
    """Nobody records how they end: as many have gone as the queue is shorter."""
    depth(app, 3, 240)
    depth(app, 1, 0)
    found = flow(app)
    assert found is not None
    assert (found.goes, found.comes) == (2.0, 0.0)


def test_the_depth_is_that_of_the_last_look_of_a_minute(app: ConventionsApp) -> None:
    """What is ready, and what workers have."""
    depths, minute = Depths(app.store), Counts(app.store).this_minute()
    depths.note({"mail": QueueLevel(5, 100, 0, 2, None)})
    depths.note({"mail": QueueLevel(7, 100, 0, 2, None), "unknown": QueueLevel()})
    found = {**depths.read(minute, minute + 1)}
    assert found[max(found)] == {"mail": 9, "unknown": 0}


def test_the_last_hour_by_the_minute(app: ConventionsApp) -> None:
    """With zeros, and the waits of each."""
    ended(app, 0, 3, wait=2.0)
    ended(app, 59, 2, kind="retried")
    ended(app, 60, 5)
    minutes = overview_of(app).minutes
    assert len(minutes) in (60, 61)
    counts = {len(minutes) - 1 - place: one.figures for place, one in enumerate(minutes) if one.figures.counts}
    assert [(of, figures.of("succeeded"), figures.of("retried")) for of, figures in sorted(counts.items())] in (
        [(0, 3, 0), (59, 0, 2)],
        [(1, 3, 0)],  # a minute has passed meanwhile
    )
    assert [one.figures.wait.quantile(0.5) for one in minutes if one.figures.of("succeeded")] == [pytest.approx(1.5)]


def test_deploys_and_actions_are_marks(app: ConventionsApp) -> None:
    """The first release that was ever seen is none."""
    ended(app, 30, 1, release="r1")
    ended(app, 10, 1, release="r2")
    with app.database.session() as session:
        audit.record(session, AuditEntry("ann", "schedule pause", "daily", "the printer burns"))
    found = overview_of(app)
    assert [mark for one in found.minutes for mark in one.marks] == ["release r2", "schedule pause by ann"]
    assert found.actions is not None
    assert [(one.actor, one.action, one.target, one.reason) for one in found.actions] == [
        ("ann", "schedule pause", "daily", "the printer burns")
    ]


def test_what_cannot_be_read_is_said(app: ConventionsApp) -> None:
    """The rest is shown, and the address of the database is not."""
    app.database = Database("postgresql://me:hunter2@127.0.0.1:1/none")
    found = overview_of(app)
    assert {"letters", "actions"} <= found.absent.keys()
    assert found.actions is None
    assert found.queues
    assert "hunter2" not in repr(overview_json(found, ZoneInfo("Asia/Tokyo")))
    assert not found.is_well


def test_without_redis(new_database: Callable[[Path], str], tmp_path: Path) -> None:
    """Nothing is known, and that is said once for each fault."""
    with application(broker_url=f"unix://{tmp_path / 's'}", database_url=new_database(tmp_path)) as app:
        found = overview_of(app)
    assert {"queues", "workers", "minutes"} <= found.absent.keys()
    assert [one.rule for one in found.findings] == ["unreadable"]


def test_json_has_all_of_it(app: ConventionsApp) -> None:
    """Times with the offset of the zone of the settings."""
    ended(app, 0, 1, kind="retried")
    found: Overview = overview_of(app)
    shown = overview_json(found, ZoneInfo("Asia/Tokyo"))
    assert datetime.fromisoformat(shown["at"]).astimezone(UTC) == found.levels.at
    assert shown["at"].endswith("+09:00")
    assert [one["name"] for one in shown["queues"]][:1]
    assert shown["causes"][0]["retrying"] == 1
    assert shown["well"] is found.is_well
