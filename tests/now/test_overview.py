"""The overview: rates of queues, marks, and what is left out."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.queue_level import QueueLevel
from conventions.broker.redis_broker import HeldMessage
from conventions.cli.now import _drawn
from conventions.execution.change_waiting import move_selected
from conventions.execution.waiting_selection import Selection
from conventions.metrics.event_counter import EventCounter
from conventions.metrics.queue_length_history import Depth, Depths
from conventions.metrics.read_counts import Counts
from conventions.metrics.state_now import Levels, QueueNow
from conventions.metrics.worker_reports import WorkerReport, WorkerReports
from conventions.now import queue_flow
from conventions.now.overview import Overview, overview_of
from conventions.now.overview_json import overview_json
from conventions.now.queue_flow import Flow, Minutes, flows_of
from conventions.pauses.pause_actions import PauseActions
from conventions.pauses.pause_store import Target
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import Database
from conventions.storage.tables import DeadLetterRow
from tests.failures import failure, record
from tests.recorded import FAILURE, append, entry, event
from tests.workers import application


class Mail(ImmediateTask):
    """A task."""

    queue_name = "mail"
    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Do nothing."""


@pytest.fixture(autouse=True)
def one_minute(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """No minute passes during a test, and the pace is that of the full ones."""
    minute = Counts(app.store).this_minute()
    monkeypatch.setattr(queue_flow, "OF_PRESENT", 1e9)
    monkeypatch.setattr(Counts, "this_minute", lambda _: minute)


def ended(app: ConventionsApp, minutes_ago: int, number: int, **values: Any) -> None:
    """So many jobs ended so many minutes ago, each with an id of its own."""
    now = Counts(app.store).this_minute() * 60_000
    name = f"{minutes_ago}-{values}"
    some = (event(f"{name}-{n}", **{"task": Mail.name, **values}) for n in range(number))
    append(app.store, *(entry(one, at=now - minutes_ago * 60_000) for one in some))
    EventCounter(app.store).count_all()


def depth(app: ConventionsApp, minutes_ago: int, ready: int, delayed: int | None = 0) -> None:
    """The queue was so long at the end of a minute."""
    minute = str(Counts(app.store).this_minute() - minutes_ago)
    app.store.redis.hset(app.store.key("counts", "depth", minute), mapping={"mail": ready})
    if delayed is not None:
        app.store.redis.hset(app.store.key("counts", "delayed", minute), mapping={"mail": delayed})


def consume(app: ConventionsApp) -> None:
    """A worker lives that takes the queue."""
    WorkerReports(app.store).say("w1", WorkerReport(queues=("mail",), processes=1))


def flow(app: ConventionsApp) -> Flow | None:
    """That of the queue."""
    return overview_of(app).flows.get("mail")


def test_how_fast_a_queue_fills_and_empties(app: ConventionsApp) -> None:
    """What came is what went, and by how much it is longer; both over the last two full minutes."""
    assert flow(app) is None  # nobody has looked yet
    consume(app)
    Mail.enqueue_many([{"number": number} for number in range(30)])
    depth(app, 3, 150)
    depth(app, 1, 30)
    ended(app, 1, 120)
    ended(app, 2, 120)
    found = flow(app)
    assert found is not None
    assert (found.goes, found.comes) == (2.0, 1.0)
    assert found.empty_in == pytest.approx(30)


@pytest.mark.parametrize(
    ("passed", "level", "empty_in"),
    [
        (5.0, QueueLevel(400, 0, 0, 0), 24_000.0),  # nobody can tell yet: at the pace of before, 2 in two minutes
        (30.0, QueueLevel(400, 0, 0, 0), 20.0),
        (30.0, QueueLevel(400, 300, 0, 0), 40.0),  # of those that are gone, some are tried again
        (30.0, QueueLevel(900, 0, 0, 100), None),  # workers have them, and none has ended
        (30.0, QueueLevel(1200, 0, 0, 0), None),
        (-3.0, QueueLevel(400, 0, 0, 0), 24_000.0),  # another clock
        (75.0, QueueLevel(400, 0, 0, 0), 24_000.0),
    ],
)
def test_a_pace_that_has_just_changed(
    monkeypatch: pytest.MonkeyPatch, passed: float, level: QueueLevel, empty_in: float | None
) -> None:
    """As workers are started: the present minute says when the queue is empty, once it is old enough."""
    monkeypatch.setattr(queue_flow, "OF_PRESENT", 20.0)
    depths = {7: {"mail": Depth(1002, 0)}, 9: {"mail": Depth(1000, 0)}}
    levels = Levels(datetime.now(UTC), queues={"mail": QueueNow("mail", level, None, 1)})
    (found,) = flows_of(Minutes({}, depths, {}, 10, passed), levels, ()).values()
    assert found.empty_in == (None if empty_in is None else pytest.approx(empty_in))


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
    assert found[max(found)] == {"mail": Depth(9, 100), "unknown": Depth(0, 0)}


def test_what_waits_for_later_or_is_tried_again_is_no_end(app: ConventionsApp) -> None:
    """It stays in its queue. A recorder of the release before does not note it: then it goes, and comes once more."""
    depth(app, 3, 240, 0)
    depth(app, 1, 0, 240)
    ended(app, 1, 240, kind="retried")
    found = flow(app)
    assert found is not None
    assert (found.goes, found.comes) == (0.0, 0.0)
    for minutes_ago in (1, 3):
        app.store.redis.delete(app.store.key("counts", "delayed", str(Counts(app.store).this_minute() - minutes_ago)))
    found = flow(app)
    assert found is not None
    assert (found.goes, found.comes) == (2.0, 0.0)


def test_a_paused_task_makes_no_pace(app: ConventionsApp) -> None:
    """Its messages are held back, and not due; what is ready of others is worked on as ever."""
    Mail.enqueue_many([{"number": number} for number in range(60)])
    consume(app)
    depth(app, 3, 1000, 0)
    depth(app, 1, 60, 820)
    ended(app, 1, 120)
    found = flow(app)
    assert found is not None
    assert (found.goes, found.comes) == (1.0, 0.0)
    assert found.empty_in == pytest.approx(60)
    depth(app, 1, 1000, 0)  # it was resumed
    found = flow(app)
    assert found is not None
    assert (found.goes, found.comes, found.empty_in) == (1.0, 1.0, None)


def shrinks(app: ConventionsApp) -> float | None:
    """When a queue of 60 is empty that gets shorter by one a second."""
    depth(app, 3, 180)
    depth(app, 1, 60)
    found = flow(app)
    assert found is not None
    return found.empty_in


def test_a_queue_that_nobody_takes_is_not_empty_soon(app: ConventionsApp) -> None:
    """Without a worker, or paused; also for a while after somebody has let it run."""
    Mail.enqueue_many([{"number": number} for number in range(60)])
    assert shrinks(app) is None
    consume(app)
    assert shrinks(app) == pytest.approx(60)
    pauses = PauseActions(app.store)
    pauses.pause(Target("queue", "mail"), "ann", "the bank is down")
    assert shrinks(app) is None


@pytest.mark.parametrize(
    ("action", "target", "there"),
    [
        ("queue resume", "mail", False),
        ("queue resume", "other", True),
        ("task pause", Mail.name, False),
        ("task resume", "another", True),
        ("worker resume", "w1", False),
        ("schedule pause", "mail", True),
    ],
)
def test_a_pause_or_resume_disturbs_the_pace(app: ConventionsApp, action: str, target: str, there: bool) -> None:
    """Of the queue that it concerns, as the audit says it."""
    Mail.enqueue_many([{"number": number} for number in range(60)])
    consume(app)
    ended(app, 1, 120)
    with app.database.session() as session:
        audit.record(session, AuditEntry("ann", action, target, "the bank is down"))
    assert (shrinks(app) is not None) is there


@pytest.mark.parametrize("kind", ["cancelled", "purged"])
def test_what_people_remove_is_no_work(app: ConventionsApp, kind: str) -> None:
    """Nobody knows then how much was sent. A few among many are nothing."""
    Mail.enqueue_many([{"number": number} for number in range(60)])
    consume(app)
    ended(app, 2, 120)
    ended(app, 1, 6, kind=kind)
    assert shrinks(app) == pytest.approx(60)
    ended(app, 3, 7000, kind=kind)
    depth(app, 3, 7180)
    found = flow(app)
    assert found == Flow(None, 1.0, None)


def test_what_people_move_is_neither_sent_nor_work(app: ConventionsApp) -> None:
    """In both queues."""
    Mail.enqueue_many([{"number": number} for number in range(60)])
    move_selected(app, Selection(("mail",)), "other", "ann", "a worker of its own")
    minute = Counts(app.store).this_minute()
    moved = Depths(app.store).moved(minute - 1, minute)
    assert {queue: count for one in moved.values() for queue, count in one.items()} == {"mail": 60, "other": 60}
    depth(app, 3, 60)
    depth(app, 1, 0)
    flows = overview_of(app).flows
    assert flows["mail"] == flows["other"] == Flow(None, None, None)


def test_how_many_wait_because_of_a_pause(app: ConventionsApp) -> None:
    """Of a queue what is ready; of a task what workers hold back, which is not due."""
    Mail.enqueue_many([{"number": number} for number in range(5)])
    pauses = PauseActions(app.store)
    for target in (Target("queue", "mail"), Target("task", Mail.name)):
        pauses.pause(target, "ann", "the bank is down")
    for one in app.broker.reserve(["mail"], 2):
        app.broker.hold_back([HeldMessage(one.tag, one.queue, one.receipt)], task=Mail.name, period=3600, why="paused")
    found = overview_of(app)
    assert (found.waits_for(Target("queue", "mail")), found.waits_for(Target("task", Mail.name))) == (3, 2)
    assert [one["waiting"] for one in overview_json(found, ZoneInfo("UTC"))["pauses"]] == [3, 2]
    assert found.waits_for(Target("worker", "w1")) is None
    app.broker.drop("mail")
    assert overview_of(app).waits_for(Target("task", Mail.name)) == 0


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
    assert marks(found) == ["release r2", "schedule pause by ann"]
    assert found.actions is not None
    assert [(one.actor, one.action, one.target, one.reason) for one in found.actions] == [
        ("ann", "schedule pause", "daily", "the printer burns")
    ]


def marks(found: Overview) -> list[str]:
    """What happened within the last hour."""
    return [mark for one in found.minutes for mark in one.marks]


def did(app: ConventionsApp, *entries: AuditEntry, ago: timedelta = timedelta()) -> None:
    """People have done this, so long ago."""
    with app.database.session() as session:
        audit.record_once(session, [(one, datetime.now(UTC) - ago) for one in entries])


def test_an_action_on_many_is_one_mark(app: ConventionsApp) -> None:
    """An edit of many letters has a row for each; others are seen beside it, and each of those that are apart."""
    did(app, AuditEntry("ann", "queue pause", "mail", "x"), ago=timedelta(seconds=1800))
    edits = [AuditEntry("u", "dead-letters edit", f"m{n}", "the field is new", {}, {}) for n in range(312)]
    did(app, *edits[:200], ago=timedelta(seconds=630))
    did(app, *edits[200:], ago=timedelta(seconds=575))
    did(app, AuditEntry("u", "dead-letters edit", "m9", "the field is new", {}, {}), ago=timedelta(seconds=300))
    did(app, AuditEntry("u", "cancel", "a", "no"), AuditEntry("u", "cancel", "b", "no"), ago=timedelta(seconds=200))
    did(app, AuditEntry("ann", "cancel", "c", "no"), ago=timedelta(seconds=190))
    found = overview_of(app)
    edited = "dead-letters edit by u"
    assert marks(found) == [
        "queue pause by ann",
        f"{edited}: 312 letters",
        edited,
        "cancel by u: 2 jobs",
        "cancel by ann",
    ]
    assert [(one.target, one.count) for one in found.actions or ()] == [
        ("c", 1), ("2 jobs", 2), ("m9", 1), ("312 letters", 312), ("mail", 1),
    ]  # fmt: skip


def test_an_action_that_begins_and_ends_is_one_mark(app: ConventionsApp) -> None:
    """At its beginning; one that was cut short has only that."""
    for seconds, row in (
        (900, "messages cancel begins"),
        (700, "messages cancel"),
        (600, "messages cancel begins"),
        (500, "purge begins"),
    ):
        did(app, AuditEntry("u", row, "mail", "no"), ago=timedelta(seconds=seconds))
    did(app, AuditEntry("ann", "messages cancel", "mail", "no"), ago=timedelta(seconds=400))
    found = overview_of(app)
    assert marks(found) == [
        "messages cancel by u",
        "messages cancel begins by u",
        "purge begins by u",
        "messages cancel by ann",
    ]
    first = (found.actions or ())[-1]
    assert timedelta(seconds=890) < datetime.now(UTC) - first.at < timedelta(seconds=999)


def test_old_actions_are_shown_still(app: ConventionsApp) -> None:
    """Those on many things, one by one, as many as there is room for."""
    did(app, *(AuditEntry("u", "cancel", f"m{n}") for n in range(300)), ago=timedelta(hours=2))
    found = overview_of(app)
    assert (marks(found), len(found.actions or ())) == ([], 10)


def test_what_cannot_be_read_is_said(app: ConventionsApp) -> None:
    """The rest is shown, and the address of the database is not."""
    app.database = Database("postgresql://me:hunter2@127.0.0.1:1/none")
    found = overview_of(app)
    assert {"letters", "actions"} <= found.absent.keys()
    assert found.actions is None
    assert found.queues
    assert "hunter2" not in repr(overview_json(found, ZoneInfo("Asia/Tokyo")))
    assert not found.is_well


@pytest.mark.thorough
def test_without_redis(new_database: Callable[[Path], str], tmp_path: Path) -> None:
    """Nothing is known, and that is said once for each fault."""
    with application(broker_url=f"unix://{tmp_path / 's'}", database_url=new_database(tmp_path)) as app:
        found = overview_of(app)
    assert {"queues", "workers", "minutes"} <= found.absent.keys()
    (one,) = found.findings
    assert (one.rule, f"Redis at unix://{tmp_path}/s does not answer: ConnectionError" in one.says) == (
        "unreadable",
        True,
    )


def test_a_redis_that_is_away_is_named(new_database: Callable[[Path], str], tmp_path: Path) -> None:
    """Once, by its address without the password."""
    address = "redis://me:hunter2@127.0.0.1:1/0"
    with application(broker_url=address, database_url=new_database(tmp_path)) as app:
        found = overview_of(app)
    (one,) = found.findings
    assert "Redis at redis://me:**@127.0.0.1:1/0 does not answer" in one.says
    assert "hunter2" not in repr(overview_json(found, ZoneInfo("UTC")))


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


def test_a_cause_says_how_many_of_its_dead_letters_were_sent_again(app: ConventionsApp) -> None:
    """Those of this episode alone, and none that is dead again, discarded, or of another cause."""
    app.database.upgrade()
    ended(app, 5, 4, kind="dead")
    (cause,) = overview_of(app).causes
    assert (cause.dead, overview_of(app).sent_again(cause)) == (4, 0)
    at = datetime.fromtimestamp(cause.since, UTC)
    states = ("redriving", "redriven", "redriven", "dead", "discarded")
    for number, state in enumerate(states):
        for name, failed in ((f"m{number}", FAILURE), (f"o{number}", replace(FAILURE, fingerprint="another"))):
            record(app.database, failure(name, at=at, failure=failed))
            with app.database.session() as session:
                session.get_one(DeadLetterRow, name).state = state
    record(app.database, failure("before", at=at - timedelta(hours=3), failure=FAILURE))
    with app.database.session() as session:
        session.get_one(DeadLetterRow, "before").state = "redriven"
    found = overview_of(app)
    assert found.sent_again(cause) == 3
    assert [one["sent_again"] for one in overview_json(found, ZoneInfo("UTC"))["causes"]] == [3]
    drawn = Console(width=200, file=StringIO())
    drawn.print(_drawn(app, found))
    text = drawn.file.getvalue()  # type: ignore[attr-defined]  # it is the one above
    (row,) = [line for line in text.splitlines() if line.startswith("ValueError")]
    assert row.split()[4:6] == ["4", "3"], text
    assert "dead-letters groups" in text
