"""A job goes on where it was: checkpoints, and what a report of progress says to a job that may not go on (R11, R12)."""

import os
import signal
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult
from redis.exceptions import ConnectionError as RedisConnectionError

from conventions import BusinessError, LongRunningTask, PayloadError, Progress, RetryPolicy
from conventions.app import ConventionsApp
from conventions.core.errors import JobCancelled, LeaseLost
from conventions.dead_letters.resend import redrive
from conventions.idempotency.claim_answers import Granted
from conventions.idempotency.claims import ClaimRequest, Claims
from conventions.jobs.result_backend import PROGRESS
from conventions.progress.reporter import Checkpoint, LeaseGuard, ProgressReporter
from conventions.storage.redis_store import Store
from tests.support import patient, wait_until
from tests.workers import wait_for_letter

DAY = timedelta(days=1)


class Walk(LongRunningTask):
    """Take numbered steps, and end in different ways at the fifth."""

    idempotent_on = ("folder",)
    retry_policy = RetryPolicy(attempts=2, first_wait=0.1)

    def run(self, folder: Path, ending: str) -> int:
        """Write each step down, with where this attempt began."""
        first = self.resumed_from or 0
        self.progress.total = 8
        for step in range(first, 8):
            if step == 5 and not (folder / "went on").exists():
                self.end(folder, ending)
            with (folder / "steps").open("a") as steps:
                steps.write(f"{step} ")
            self.progress.advance(note=f"step {step}")
            if step == 2:
                self.checkpoint(step + 1)
        return first

    def end(self, folder: Path, ending: str) -> None:
        if ending != "fail for good":
            (folder / "went on").touch()
        if ending == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError(ending)


class Report(LongRunningTask):
    """Report progress, and go on when a file is there."""

    idempotent_on = ("go",)

    def run(self, go: Path) -> str:
        """Wait."""
        self.progress.total = 4
        self.progress.advance(1, note="the first")
        while not go.exists():
            time.sleep(0.02)
            self.progress.advance(0)
        if go.name == "fail":
            raise BusinessError("it must fail")
        return "gone"


class Odd(LongRunningTask):
    """Make checkpoints that cannot be kept."""

    not_idempotent = "nothing happens"
    retry_policy = RetryPolicy(attempts=1)

    def run(self, large: bool) -> None:
        """Try."""
        self.checkpoint("x" * 300_000 if large else object())


@pytest.mark.parametrize("ending", ["kill", "fail"])
def test_a_job_goes_on_at_its_checkpoint(live_app: ConventionsApp, tmp_path: Path, ending: str) -> None:
    """After a kill and after a retry; its progress goes on with what was counted there, and ends at 100 %."""
    walk = Walk.apply_async((tmp_path, ending), ignore_result=False)
    assert walk.get(timeout=patient(30)) == 3
    assert (tmp_path / "steps").read_text() == "0 1 2 3 4 3 4 5 6 7 "
    found = Progress.of(walk.id)
    assert (found.done, found.total, found.percent, found.note, found.ended) == (8, 8, 100, "step 7", "done")
    assert Progress.checkpoint_of(walk.id, "any", live_app.store) is None  # it is done: nothing goes on from there


def test_a_redriven_job_goes_on_too(live_app: ConventionsApp, tmp_path: Path) -> None:
    """A person mends the cause; what was done before it stays done."""
    walk = Walk.delay(tmp_path, "fail for good")
    wait_for_letter(live_app, walk.id)
    assert Progress.of(walk.id).ended == "dead"
    (tmp_path / "went on").touch()
    assert redrive(live_app, walk.id, "ann")
    wait_until(lambda: Progress.of(walk.id).ended == "done", 20, "the walk has ended")
    assert (tmp_path / "steps").read_text() == "0 1 2 3 4 3 4 3 4 5 6 7 "


def test_a_checkpoint_of_other_arguments_does_not_count(store: Store) -> None:
    """A dead letter was edited: going on in the middle of something else would be wrong."""
    reporter = ProgressReporter(store, "job", keep=DAY, on_report=lambda: None)
    reporter.advance(7)
    reporter.checkpoint({"page": 3}, "the fingerprint")
    assert Progress.checkpoint_of("job", "the fingerprint", store) == Checkpoint({"page": 3}, 7, 0)
    assert Progress.checkpoint_of("job", "another", store) is None


@pytest.mark.parametrize(("large", "message"), [(True, "the limit is"), (False, "a checkpoint must be JSON")])
def test_what_is_no_checkpoint(live_app: ConventionsApp, large: bool, message: str) -> None:
    """The error is at the call, in the job."""
    letter = wait_for_letter(live_app, Odd.delay(large).id)
    assert letter.error == PayloadError.__name__
    assert message in letter.error_message


def test_tools_see_the_state_progress(live_app: ConventionsApp, tmp_path: Path) -> None:
    """As Celery calls it, without a write to the result backend; after the end the state is that of the result."""
    go = tmp_path / "go"
    report = Report.apply_async((go,), ignore_result=False)
    state = AsyncResult[Any](report.id, app=live_app)
    fields = wait_until(lambda: state.state == PROGRESS and state.info["done"] and state.info, description="it reports")
    assert (fields["done"], fields["total"], fields["percent"], fields["note"]) == (1, 4, 25, "the first")
    assert (fields["current"], fields["description"]) == (1, "the first")
    go.touch()
    assert report.get(timeout=patient(10)) == "gone"
    assert AsyncResult[Any](report.id, app=live_app).state == "SUCCESS"


@pytest.mark.parametrize(("ending", "state"), [("well", "SUCCESS"), ("dead", "FAILURE"), ("cancelled", "REVOKED")])
def test_without_a_kept_result_the_progress_says_how_it_ended(
    live_app: ConventionsApp, tmp_path: Path, ending: str, state: str
) -> None:
    """A bar that a tool draws must end, too."""
    go = tmp_path / ("fail" if ending == "dead" else "go")
    report = Report.delay(go)
    result = AsyncResult[Any](report.id, app=live_app)
    wait_until(lambda: result.state == PROGRESS, description="it runs")
    if ending == "cancelled":
        Report.cancel(report.id)
    else:
        go.touch()
    wait_until(lambda: AsyncResult[Any](report.id, app=live_app).state == state, description="it has ended")


# The one round trip.


def held(claims: Claims, token: str = "t1") -> ClaimRequest:
    """A claim that is taken."""
    request = ClaimRequest("Task", "key", token, "job", "fingerprint", start=token)
    assert isinstance(claims.take([request])[0], Granted)
    return request


def reporting(store: Store, request: ClaimRequest, batch_id: str = "") -> ProgressReporter:
    """What a job with this claim reports through."""
    return ProgressReporter(store, "job", keep=DAY, on_report=lambda: None, guard=LeaseGuard(request, 30.0, batch_id))


def commands(store: Store) -> int:
    """How many scripts the server ran."""
    stats: Any = store.redis.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


@pytest.mark.own_server
def test_a_report_renews_the_lease(store: Store) -> None:
    """So that a job whose own renewal is late keeps its claim while it gets on (R12)."""
    claims = Claims(store, lease=0.5)
    request = held(claims)
    key = store.key("claim", request.claim)
    before = int(store.redis.hget(key, "until") or 0)
    store.redis.script_load(store.script("progress_report").script)
    calls = commands(store)
    reporting(store, request).advance(3)
    assert commands(store) - calls == 1
    assert int(store.redis.hget(key, "until") or 0) >= before + 29_000
    assert Progress.of("job", store).done == 3


def test_a_job_that_was_taken_over_hears_of_it(store: Store) -> None:
    """At its next report, with what to do; nothing of the new holder's progress is overwritten."""
    claims = Claims(store, lease=0.05)
    reporter = reporting(store, held(claims))
    reporter.advance(5)

    def taken() -> bool:
        request = ClaimRequest("Task", "key", "t2", "job", "fingerprint", start="t2")
        return isinstance(claims.take([request])[0], Granted)

    store.redis.hset(store.key("claim", "Task:key"), "until", 0)  # as if its lease were over
    wait_until(taken, 5, "another worker has the claim")
    store.redis.hset(store.key("progress", "job"), "done", 1)
    with pytest.raises(LeaseLost, match=r"another worker has taken this job over.*or raise stall_after"):
        reporter.total = 9
    assert Progress.of("job", store).done == 1


@pytest.mark.parametrize("which", ["job", "the batch"])
def test_a_report_hears_of_a_cancel(store: Store, claims: Claims, which: str) -> None:
    """Of the message's own, and of its batch's."""
    reporter = reporting(store, held(claims), "the batch")
    reporter.total = 3
    store.redis.set(store.key("cancel", which), "0")
    with pytest.raises(JobCancelled):
        reporter.total = 4


def test_a_report_that_is_sent_twice_counts_once(store: Store, claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply was lost: the client sends the same again."""
    call = store.call

    def twice(name: str, arguments: Any) -> Any:
        with closing(call(name, arguments)) as first:
            first.answer()
        return call(name, arguments)

    reporter = reporting(store, held(claims))
    monkeypatch.setattr(store, "call", twice)
    reporter.advance(2, failed=1)
    found = Progress.of("job", store)
    assert (found.done, found.failed) == (2, 1)


def test_a_job_goes_on_while_redis_is_away(store: Store, claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage is no reason to fail, nor to ask at each item; the next report has all that was counted."""
    reporter = reporting(store, held(claims))
    asked = []

    def away(name: str, _: Any) -> Any:
        asked.append(name)
        raise RedisConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "call", away)
        for _ in range(100):
            reporter.advance(2)
        assert asked == ["progress_report"]
    reporter.total = 700
    assert (Progress.of("job", store).done, Progress.of("job", store).total) == (200, 700)


def test_the_rate_is_that_of_this_attempt(store: Store, claims: Claims) -> None:
    """What was counted before the checkpoint took no time now."""
    reporter = ProgressReporter(store, "job", keep=DAY, on_report=lambda: None, start=Checkpoint(None, 5000, 0))
    reporter.total = 10_000
    store.redis.hset(store.key("progress", "job"), "started_at", time.time() - 10)
    reporter.advance(100)
    reporter.close()
    found = Progress.of("job", store)
    assert found.done == 5100
    assert 9 < found.rate < 11


def test_the_progress_of_a_batch_is_counted_by_its_chunks(store: Store, claims: Claims) -> None:
    """What its splitter reports is a note, and a sign of life."""
    store.redis.hset(store.key("progress", "job"), mapping={"done": 40, "started_at": 5})
    reporter = ProgressReporter(store, "job", keep=DAY, on_report=lambda: None, counts=False)
    reporter.advance(7, note="reading")
    reporter.close()
    found = Progress.of("job", store)
    assert (found.done, found.note, found.started_at) == (40, "reading", 5)


@pytest.mark.parametrize("total", [-1, 1.5, "7", True])
def test_a_total_is_a_number_of_items(store: Store, total: Any) -> None:
    """Anything else would be found out by whoever reads it."""
    with pytest.raises(ValueError, match=r"progress\.total must be a number of items"):
        ProgressReporter(store, "job", keep=DAY, on_report=lambda: None).total = total
