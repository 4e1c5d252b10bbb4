"""A job that has ended, with real workers: how, with what result, and what Celery's `AsyncResult` says of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import chain
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeout
from sqlalchemy.event import listen, remove

from conventions import EVERY_ARGUMENT, BatchTask, ImmediateTask, Job, LongRunningTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.core.errors import JobCancelled, JobFailed
from conventions.dead_letters import discard_letters
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.resend import redrive
from conventions.execution.cancel import cancel
from conventions.now.job_filter import JobFilter
from conventions.now.job_line import JobLine
from conventions.now.job_listing import list_jobs
from conventions.storage.database import Database
from tests.support import wait_until
from tests.workers import told, wait_for_letter


class Double(ImmediateTask):
    """Double a number."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> dict[str, int]:
        """Its result is not kept by Celery."""
        return {"twice": 2 * number}


class Alone(Double):
    """The same, in no group."""

    fast_lane = False


class Fails(ImmediateTask):
    """Fail until a file is there."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(attempts=2, first_wait=0.05)

    def run(self, file: Path) -> str:
        """The second failure makes a dead letter of it."""
        if not file.exists():
            raise LookupError(f"no {file.name}")
        return "mended"


class FailsLater(Fails):
    """Wait long for the second attempt."""

    retry_policy = RetryPolicy(attempts=2, first_wait=600, max_wait=600)


class KeptFailure(ImmediateTask):
    """Fail, with a result that Celery keeps."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    retry_policy = RetryPolicy(attempts=1)

    def run(self, number: int) -> None:
        """Each time."""
        raise LookupError(f"no {number}")


class Steps(LongRunningTask):
    """Report progress until a file is there."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, file: Path) -> int:
        """It hears at a report that it was cancelled."""
        self.progress.total = 4

        def step() -> bool:
            self.progress.advance(0, note="looks")
            return file.exists()

        wait_until(step, 60)
        self.progress.advance(4)
        return 4


class Numbers(BatchTask):
    """Look at numbers."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(attempts=1)
    chunk_size = 2

    def items(self, folder: Path) -> Iterator[int]:  # noqa: ARG002  # `process` uses it
        """Five."""
        yield from range(5)

    def process(self, chunk: list[int], folder: Path) -> None:
        """Wait for a file, and fail the second chunk if there is another one."""
        wait_until((folder / "go").exists, 60)
        if 2 in chunk and (folder / "fail").exists():
            raise ValueError("no")


def state(app: ConventionsApp, id_: str) -> str:
    """What Celery says."""
    found: str = app.AsyncResult(id_).state
    return found


@pytest.mark.parametrize("task", [Double, Alone])
def test_a_success(live_app: ConventionsApp, task: type[Double]) -> None:
    """With its result, which Celery does not keep; Celery's own result says the same."""
    sent = task.delay(number=4)
    job = Job.of(sent.id).wait(20)
    assert (job.state, job.ended, job.went_well, job.attempts) == ("succeeded", True, True, 1)
    assert (job.has_result, job.result, job.error, job.waits_because) == (True, {"twice": 8}, None, "")
    assert job.started_at is not None
    assert job.ended_at is not None
    assert abs(job.ended_at - job.started_at) < timedelta(seconds=20)  # by two clocks
    assert job.worker is not None
    assert wait_until(lambda: state(live_app, sent.id) == "SUCCESS")
    assert live_app.AsyncResult(sent.id).get(timeout=5) == {"twice": 8}
    assert sent.get(timeout=5) == {"twice": 8}
    wait_until(lambda: not live_app.journal.length(), description="it is in SQL")
    assert Job.of(sent.id).result == {"twice": 8}
    again = task.delay(number=4)
    twin = Job.of(again.id).wait(20)
    assert (twin.state, twin.went_well, twin.result) == ("duplicate", True, {"twice": 8})


def test_a_caller_that_waits_by_celerys_result(live_app: ConventionsApp, tmp_path: Path) -> None:
    """Nobody keeps the result, and it ends while somebody waits; a time-out stays Celery's."""
    sent = Steps.delay(file=tmp_path / "go")
    with pytest.raises(CeleryTimeout):
        live_app.AsyncResult(sent.id).get(timeout=1.5)
    wait_until(lambda: state(live_app, sent.id) == "PROGRESS")
    assert live_app.AsyncResult(sent.id).result["note"] in ("", "looks")
    (tmp_path / "go").touch()
    assert live_app.AsyncResult(sent.id).get(timeout=30) == 4
    job = Job.of(sent.id)
    assert job.progress is not None
    assert (job.state, job.progress.done, job.progress.percent) == ("succeeded", 4, 100)


def retrying(app: ConventionsApp, limit: int = 100) -> dict[str, JobLine]:
    """The jobs that are tried again, as a list has them."""
    found = list_jobs(app, JobFilter(state="retrying"), limit)
    assert found.absent == {}
    return {one.id: one for one in found.lines}


def test_a_list_reads_the_errors_of_those_that_it_shows(
    live_app: ConventionsApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists them without, and says so, while SQL is away."""
    sent = {FailsLater.delay(file=tmp_path / f"never {number}").id for number in range(3)}
    wait_until(lambda: sum(one.error == "LookupError" for id_, one in retrying(live_app).items() if id_ in sent) == 3)
    asked: list[int] = []

    def counts(*of: Any) -> None:
        asked.append(len(of[3]))

    listen(live_app.database.engine, "before_cursor_execute", counts)
    assert len(retrying(live_app, 2)) == 2
    remove(live_app.database.engine, "before_cursor_execute", counts)
    assert max(asked) == 2, "the ids of those that are shown"
    monkeypatch.setattr(live_app, "database", Database(f"sqlite:///{tmp_path}"))  # a folder is no database
    found = list_jobs(live_app, JobFilter(state="retrying"), 100)
    lines = [one for one in found.lines if one.id in sent]
    assert [(one.error, one.due_at is None) for one in lines] == [(None, False)] * 3
    assert list(found.absent) == ["errors of retrying jobs"]


def test_a_failure_until_its_end(live_app: ConventionsApp, tmp_path: Path) -> None:
    """Retrying, then dead; sent again, and then well; its error stays with each state."""
    later = FailsLater.delay(file=tmp_path / "never")
    job = wait_until(lambda: one if (one := Job.of(later.id)).state == "retrying" else None)
    assert (job.attempts, job.error, job.error_message) == (1, "LookupError", "no never")
    assert job.due_at is not None
    assert job.due_at > datetime.now(UTC) + timedelta(minutes=2)
    assert state(live_app, later.id) == "RETRY"
    listed = wait_until(lambda: one if (one := retrying(live_app)[later.id]).error else None)  # it is in SQL by now
    assert (listed.error, listed.error_message, listed.due_at) == ("LookupError", "no never", job.due_at)

    sent = Fails.delay(file=tmp_path / "mended")
    job = Job.of(sent.id).wait(20)
    assert (job.state, job.ended, job.went_well, job.attempts) == ("dead", True, False, 2)
    assert (job.error, job.has_result, job.traceback is not None) == ("LookupError", False, True)
    wait_until(lambda: state(live_app, sent.id) == "FAILURE")
    with pytest.raises(JobFailed, match=r"LookupError: no mended"):
        live_app.AsyncResult(sent.id).get(timeout=5)
    assert "LookupError" in live_app.AsyncResult(sent.id).traceback
    wait_for_letter(live_app, sent.id)
    (tmp_path / "mended").touch()
    assert redrive(live_app, sent.id, "ann")
    job = wait_until(lambda: one if (one := Job.of(sent.id)).state == "succeeded" else None)
    assert (job.redrives, job.attempts, job.result, job.error) == (1, 1, "mended", None)
    assert wait_until(lambda: state(live_app, sent.id) == "SUCCESS")


def test_a_dead_letter_that_was_closed(live_app: ConventionsApp, tmp_path: Path) -> None:
    """It is discarded."""
    sent = Fails.delay(file=tmp_path / "closed")
    wait_for_letter(live_app, sent.id)
    with live_app.database.session() as session:
        discard_letters.discard(session, Filter(ids=(sent.id,)), actor="u-42", reason="no matter")
    assert Job.of(sent.id).state == "discarded"
    assert state(live_app, sent.id) == "FAILURE"


@pytest.mark.parametrize("how", ["cancelled", pytest.param("revoked", marks=pytest.mark.processes), "expired"])
def test_what_was_kept_from_running(live_app: ConventionsApp, how: str) -> None:
    """It says how; Celery has one word for all."""
    options: dict[str, Any] = {"expires": 0.2} if how == "expired" else {}
    due = 0.6 if how == "expired" else 5  # longer than it takes until a worker has heard
    sent = Double.apply_async(kwargs={"number": hash(how) % 1000}, countdown=due, **options)
    if how == "cancelled":
        cancel(live_app, sent.id)
    elif how == "revoked":
        told(live_app.control.revoke, sent.id)
    job = Job.of(sent.id).wait(30)
    assert (job.state, job.went_well, job.has_result) == (how, False, False)
    wait_until(lambda: state(live_app, sent.id) == "REVOKED")
    with pytest.raises(JobCancelled if how == "cancelled" else TaskRevokedError, match=how):
        live_app.AsyncResult(sent.id).get(timeout=5)


def test_a_kept_failure_is_never_shown_as_another_error(live_app: ConventionsApp) -> None:
    """Its end is recorded before Celery stores its error: a caller that looks in between waits for that."""
    for number in range(40):
        sent = KeptFailure.delay(number=number)
        with pytest.raises(LookupError, match=f"no {number}"):
            live_app.AsyncResult(sent.id).get(timeout=20)


def test_a_batch(live_app: ConventionsApp, tmp_path: Path) -> None:
    """It runs until its last chunk has ended."""
    sent = Numbers.delay(folder=tmp_path)
    wait_until(lambda: Job.of(sent.id).is_batch, description="it is cut")
    job = Job.of(sent.id)
    assert (job.state, job.ended, job.waits_because) == ("running", False, "")
    assert (job.ended_at, job.runtime, job.has_result) == (
        None,
        None,
        False,
    )  # those of the splitter say nothing of the batch
    (tmp_path / "go").touch()
    job = job.wait(30)
    assert job.progress is not None
    assert (job.state, job.is_batch, job.progress.done, job.ended_at is None) == ("succeeded", True, 5, False)


def test_a_batch_with_dead_chunks(live_app: ConventionsApp, tmp_path: Path) -> None:
    """It has ended, and not well."""
    for name in ("go", "fail"):
        (tmp_path / name).touch()
    job = Job.of(Numbers.delay(folder=tmp_path).id).wait(30)
    assert job.progress is not None
    assert (job.state, job.ended, job.went_well, job.progress.failed) == ("partly failed", True, False, 2)


def test_a_chain(live_app: ConventionsApp) -> None:
    """Each step is a job; one that was not sent yet is unknown until then."""
    sent = chain(Double.s(number=1), Double.si(number=2))()
    assert Job.of(sent.id).wait(20).result == {"twice": 4}
    assert Job.of(sent.parent.id).result == {"twice": 2}
