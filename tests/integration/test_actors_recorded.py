"""Who caused a job is in the row of each attempt, whichever way the job came; and in the audit, with a real worker (R22)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import chain, chord, group

from conventions import EVERY_ARGUMENT, BatchTask, BusinessError, ImmediateTask, RetryPolicy, ScheduledTask, acting_as
from conventions.app import ConventionsApp
from conventions.batches.batch_summary import BatchSummary
from conventions.broker.batch_membership import chunk_id, finish_id
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_rows import RedriveOrder
from conventions.records.audit_filter import AuditFilter
from conventions.records.audit_listing import AuditLine, listing
from conventions.schedules.interval import every
from conventions.schedules.schedule import Schedule
from tests.console.conftest import give_schedule
from tests.redriving import begin
from tests.support import wait_until
from tests.workers import Installation, Worker, acting_through, wait_for_letter


class Flaky(ImmediateTask):
    """Fail at the first two attempts."""

    not_idempotent = "it only fails"
    retry_policy = RetryPolicy(attempts=3, first_wait=0.05, max_wait=0.05)

    def run(self) -> None:
        """Fail, but at the third."""
        if self.request.retries < 2:
            raise ConnectionError("away")


class Step(ImmediateTask):
    """A step of a canvas."""

    not_idempotent = "it does nothing"

    def run(self) -> int:
        """Return a number."""
        return 1


class Total(ImmediateTask):
    """The end of a chord."""

    not_idempotent = "it only adds"

    def run(self, numbers: list[int]) -> int:
        """Add them."""
        return sum(numbers)


class Items(BatchTask):
    """A batch of three chunks."""

    idempotent_on = EVERY_ARGUMENT
    chunk_size = 1

    def items(self, name: str) -> Iterator[str]:
        """Three items."""
        yield from (f"{name}{number}" for number in range(3))

    def process(self, chunk: list[str], name: str) -> None:
        """Do nothing."""

    def finish(self, summary: BatchSummary, name: str) -> None:
        """Do nothing."""


class Mended(ImmediateTask):
    """Fail until a file is there."""

    not_idempotent = "it only fails"
    retry_policy = RetryPolicy(attempts=1)

    def run(self, file: str) -> None:
        """Fail, or not."""
        if not Path(file).exists():
            raise BusinessError("not yet")


class Nightly(ScheduledTask):
    """What beat sends."""

    not_idempotent = "it does nothing"

    def run(self) -> None:
        """Do nothing."""


SCHEDULE = [Schedule("nightly", every(1), Nightly), Schedule("by-hand", every(86_400), Nightly)]


@pytest.fixture(scope="module")
def planned(module_installation: Installation) -> Installation:
    """The installation, with the schedule of this module."""
    give_schedule(module_installation, __name__)
    return module_installation


@pytest.fixture(scope="module")
def _running(planned: Installation) -> Iterator[ConventionsApp]:
    with planned.worker(), planned.application() as app:
        app.load_tasks()
        yield app


@pytest.fixture
def running(_running: ConventionsApp) -> Iterator[ConventionsApp]:
    """The application, the current one; a worker runs."""
    with acting_through(_running):
        yield _running


def lines(app: ConventionsApp, which: AuditFilter, number: int) -> list[AuditLine]:
    """The rows that match, the oldest first, once there are so many."""

    def found() -> list[AuditLine] | None:
        with app.database.session(read_only=True) as session:
            rows = listing(session, which, 100)
        return rows[::-1] if len(rows) >= number else None

    return wait_until(found, 30, f"{number} rows of {which}")


def test_each_attempt_of_a_job_has_its_actor(running: ConventionsApp) -> None:
    """A retry is sent by the worker, in the name of who sent the job."""
    sent = Flaky.apply_async(actor="u-retry")
    rows = lines(running, AuditFilter(id=sent.id), 3)
    assert [(row.attempt, row.outcome, row.actor) for row in rows] == [
        (1, "retried", "u-retry"), (2, "retried", "u-retry"), (3, "succeeded", "u-retry"),
    ]  # fmt: skip
    assert len(lines(running, AuditFilter(actor="u-retry"), 3)) == 3


@pytest.mark.parametrize(
    ("name", "canvas", "number"),
    [
        ("u-chain", lambda: chain(Step.si(), Step.si(), Step.si()), 3),
        ("u-group", lambda: group(Step.si(), Step.si()), 2),
        ("u-chord", lambda: chord([Step.si(), Step.si()], Total.s()), 3),
    ],
)
def test_each_step_of_a_canvas_has_its_actor(
    running: ConventionsApp, name: str, canvas: Callable[[], chain], number: int
) -> None:
    """Also the last one of a chord, which the worker sends that ended the last step."""
    with acting_as(name):
        canvas().apply_async()
    rows = lines(running, AuditFilter(actor=name), number)
    assert [row.outcome for row in rows] == ["succeeded"] * number
    assert name != "u-chord" or rows[-1].task == Total.name


def test_each_message_of_a_batch_has_its_actor(running: ConventionsApp) -> None:
    """The one that cuts it, its chunks, and the one that ends it; and who cancels it is in the audit."""
    batch = Items.apply_async(kwargs={"name": "a"}, actor="u-batch")
    rows = lines(running, AuditFilter(actor="u-batch"), 5)
    assert {row.id for row in rows} == {
        batch.id,
        *(chunk_id(batch.id, number) for number in range(3)),
        finish_id(batch.id),
    }
    assert {row.outcome for row in rows} == {"succeeded"}


def test_a_redriven_job_keeps_its_actor(running: ConventionsApp, tmp_path: Path) -> None:
    """Who redrove it is in the audit."""
    file = tmp_path / "mended"
    sent = Mended.apply_async(kwargs={"file": str(file)}, actor="u-sender")
    wait_for_letter(running, sent.id)
    file.touch()
    redrive = begin(running, RedriveOrder(Filter(ids=(sent.id,)), "ops", "it is mended", canary=0))
    rows = lines(running, AuditFilter(id=sent.id), 2)
    assert [(row.outcome, row.generation, row.actor) for row in rows] == [
        ("dead", 0, "u-sender"),
        ("succeeded", 1, "u-sender"),
    ]
    (action,) = lines(running, AuditFilter(id=redrive), 1)
    assert (action.action, action.actor, action.reason) == ("dead-letters redrive", "ops", "it is mended")
    assert action.before == {"ids": [sent.id]}, "it says which"


def test_a_run_by_hand_is_of_who_did_it(running: ConventionsApp, planned: Installation) -> None:
    """In the audit, and as the actor of the job."""
    done = planned.run("schedule", "run", "by-hand", "--actor", "u-hand", "--reason", "the night was lost")
    assert done.returncode == 0, done.stdout
    action, execution = lines(running, AuditFilter(actor="u-hand"), 2)
    assert (action.action, action.target, action.reason) == ("schedule run", "by-hand", "the night was lost")
    assert (execution.id, execution.task, execution.outcome) == (action.after["id"], Nightly.name, "succeeded")


def test_what_beat_sends_is_of_beat(running: ConventionsApp, planned: Installation) -> None:
    """So the two can be told apart."""
    beat = Worker(planned, planned.celery("beat"), {})
    try:
        (execution, *_) = lines(running, AuditFilter(actor="beat", of="executions"), 1)
    finally:
        beat.kill()
    assert execution.task == Nightly.name
    added = lines(running, AuditFilter(actor="beat", action="schedule add"), 2)
    assert {row.target for row in added} == {"nightly", "by-hand"}


def test_cancel_and_purge_leave_rows(running: ConventionsApp, planned: Installation) -> None:
    """Of who did it, by the command; the message of another one keeps its actor."""
    waits = Step.apply_async(countdown=3600, actor="u-1")
    done = planned.run("cancel", waits.id, "--actor", "ops", "--reason", "not needed")
    assert done.returncode == 0, done.stdout
    (action,) = lines(running, AuditFilter(id=waits.id, of="actions"), 1)
    assert (action.action, action.actor, action.reason, action.outcome) == ("cancel", "ops", "not needed", "done")
    goes = Step.apply_async(queue="nobody", actor="u-2")
    assert planned.run("purge", "-Q", "nobody", "-f").returncode == 0
    (execution,) = lines(running, AuditFilter(id=goes.id), 1)
    assert (execution.outcome, execution.actor) == ("purged", "u-2")
    assert [row.action for row in lines(running, AuditFilter(id="nobody", of="actions"), 2)] == [
        "purge begins",
        "purge",
    ]
