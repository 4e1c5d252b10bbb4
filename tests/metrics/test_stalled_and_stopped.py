"""What has gone wrong and stays so: it is found while it is so, and not before."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from conventions import EVERY_ARGUMENT, ScheduledTask
from conventions.alerts.what_rules_see import look_at
from conventions.app import ConventionsApp
from conventions.batches.batch_state import Origin
from conventions.core.alert_thresholds import Thresholds
from conventions.dead_letters import redrive_rows
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_pace_and_stop import Plan, Tally
from conventions.dead_letters.redrive_rows import RedriveOrder
from conventions.metrics.series import Series
from conventions.metrics.stalled_and_stopped import NewLetters, new_letters
from conventions.records.journal import Event
from conventions.schedules.interval import every
from conventions.schedules.schedule import Schedule
from conventions.schedules.schedule_state import Run
from conventions.schedules.schedule_store import Schedules
from conventions.storage.tables import DeadLetterRow, RedriveRow
from tests.failures import failure, record
from tests.recorded import drain, recorder
from tests.seen_findings import findings


class Import(ScheduledTask):
    """Import a file."""

    idempotent_on = EVERY_ARGUMENT

    def run(self) -> None:
        """Nothing runs here."""


SCHEDULE = [Schedule("daily", every(3600), Import, {})]


def found(app: ConventionsApp, rule: str) -> list[str]:
    """The pages that a rule leads to now."""
    app._schedule = f"{__name__}:SCHEDULE"
    return [one.page for one in findings(look_at(app, Thresholds()), Thresholds()) if one.rule == rule]


def test_a_batch_that_stands_still(app: ConventionsApp) -> None:
    """Once nothing was heard of it for its `stall_after`; not one that has just begun, nor one that is done."""
    app.batches.create("b1", Origin("shop.Import", {}, "u-42"), 7, stall_after=60)
    app.batches.create("b2", Origin("shop.Import", {}, "u-42"), 7, stall_after=10_000)
    app.batches.cancel("b2")
    assert found(app, "batch stalled") == []
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=120), tick=True):
        app.batches.note_is_cut("b1", chunks=1, total=7)
        assert found(app, "batch stalled") == ["/batches/b1"]


@pytest.mark.parametrize(("state", "expected"), [("stopped", True), ("finished", False), ("cancelled", False)])
def test_a_redrive_that_stopped(app: ConventionsApp, state: str, expected: bool) -> None:
    """By itself, within the last hour."""
    record(app.database, failure("m1", ValueError("x"), task=str(Import.name)))
    with app.database.session() as session:
        row = redrive_rows.start(session, RedriveOrder(Filter(), "u-9"))
        redrive_rows.move(session, row, Plan(state, "11 of the last 50 failed again"), Tally())
        id_ = row.id
    assert found(app, "redrive stopped") == ([f"/dead-letters/redrives/{id_}"] if expected else [])
    with app.database.session() as session:
        session.get_one(RedriveRow, id_).ended_at = datetime.now(UTC) - timedelta(hours=2)
    assert found(app, "redrive stopped") == []


def test_a_stopped_redrive_whose_letters_have_all_succeeded(app: ConventionsApp) -> None:
    """Nothing is left to do: one was sent and failed again, and one was not sent; both succeed later."""
    record(app.database, *(failure(one, ValueError("x"), task=str(Import.name)) for one in ("m1", "m2")))
    with app.database.session() as session:
        row = redrive_rows.start(session, RedriveOrder(Filter(), "u-9", canary=1))
        redrive_rows.move(session, row, Plan("stopped", "1 of the last 1 failed again"), Tally())
        session.get_one(DeadLetterRow, "m1").redrive_id = id_ = row.id
    pages = [f"/dead-letters/redrives/{id_}"]
    for letter, expected in (("m1", pages), ("m2", [])):
        assert found(app, "redrive stopped") == pages
        with app.database.session() as session:
            session.get_one(DeadLetterRow, letter).state = "redriven"
        assert found(app, "redrive stopped") == expected
    with app.database.session() as session:
        session.get_one(DeadLetterRow, "m1").state = "dead"
    assert found(app, "redrive stopped") == pages


def test_what_became_of_new_letters(app: ConventionsApp) -> None:
    """Of those that failed within the window; by task and queue."""
    now = datetime.now(UTC)
    for number, minutes in enumerate((0, 1, 2, 30)):
        at = now - timedelta(minutes=minutes)
        record(app.database, failure(f"m{number}", ValueError("x"), task=str(Import.name), at=at))
    with app.database.session() as session:
        session.get_one(DeadLetterRow, "m1").state = "redriven"
        assert new_letters(session, 15) == {Series(str(Import.name), "mail"): NewLetters(2, 1)}
    assert look_at(app, Thresholds()).levels.new_letters == {Series(str(Import.name), "mail"): NewLetters(2, 1)}


def test_a_schedule_whose_last_run_failed(app: ConventionsApp) -> None:
    """Until the next one succeeds."""
    schedules = Schedules(app.store)
    for number, (kind, expected) in enumerate((("dead", ["/schedules/daily"]), ("succeeded", []))):
        run = Run(None, datetime.now(UTC), f"m{number}", "beat")
        schedules.record("daily", run)
        app.journal.append([Event(f"m{number}", kind, task=str(Import.name), attempt=1)])
        drain(recorder(app.store, app.database))
        assert found(app, "schedule failing") == expected
