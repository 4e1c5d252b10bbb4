"""One job within a minute: what takes longer is counted by task, logged with what to do, and shown (R5)."""

import re
import time
from pathlib import Path

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from conventions import ImmediateTask, LongRunningTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.progress.overlong_jobs import OverlongJobs, TooLong
from conventions.storage.redis_store import Store
from tests.support import wait_until
from tests.workers import Installation, Worker, wait_for_letter, wait_until_empty

ONCE = RetryPolicy(attempts=1)


class Slow(ImmediateTask):
    """Take its time, and end well."""

    not_idempotent = "nothing happens"

    def run(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Stopped(ImmediateTask):
    """Be asked to stop."""

    not_idempotent = "nothing happens"
    retry_policy = ONCE
    soft_time_limit = 1
    time_limit = 30

    def run(self, obey: bool) -> None:
        """Wait; whoever does not obey ends well."""
        try:
            time.sleep(20)
        except SoftTimeLimitExceeded:
            if obey:
                raise


class Killed(ImmediateTask):
    """Do not stop when asked."""

    not_idempotent = "nothing happens"
    retry_policy = ONCE
    soft_time_limit = 1
    time_limit = 2

    def run(self) -> None:
        """Wait for ever."""
        while True:
            try:
                time.sleep(60)
            except SoftTimeLimitExceeded:
                continue


class Patient(LongRunningTask):
    """May take long."""

    not_idempotent = "nothing happens"

    def run(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


@pytest.fixture(scope="module")
def module_installation(
    request: pytest.FixtureRequest,
    valkey_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    new_database: object,
) -> Installation:
    """An immediate job is one to split after a second."""
    folder = tmp_path_factory.mktemp("installation")
    settings = {"broker_url": valkey_url, "database_url": new_database(folder)}  # type: ignore[operator]  # a function
    return Installation(folder, [request.module.__name__], [Path(__file__).parent], **settings, split_after=1)


def count_of(app: ConventionsApp, task: type[ImmediateTask]) -> TooLong | None:
    """What is known of one task."""
    return next((one for one in app.granularity.listing() if one.task == task.name), None)


def test_a_job_that_took_long_is_counted_and_logged(live_app: ConventionsApp, worker: Worker) -> None:
    """Also one that ended well; the log says what to do instead. A short one, and a long-running task, are not."""
    quick, long = Slow.delay(0), Patient.delay(1.2)
    slow = [Slow.delay(1.2), Slow.delay(1.4)]
    wait_until_empty(live_app)
    found = wait_until(lambda: count_of(live_app, Slow), description="it is counted")
    assert found.count == 2
    assert found.longest >= 1.4
    assert found.last_id in {one.id for one in slow}
    assert time.time() - found.last_at < 60
    worker.wait_for(f"too long: id={slow[0].id} task={Slow.name}: ran for ")
    assert re.search(r"ran for \d+ s; split it: one message for each item", worker.output)
    assert f"too long: id={quick.id}" not in worker.output
    assert f"too long: id={long.id}" not in worker.output


def test_a_job_that_reaches_its_soft_limit_is_counted(live_app: ConventionsApp) -> None:
    """Whether it lets itself be stopped or not."""
    wait_for_letter(live_app, Stopped.delay(True).id)
    Stopped.delay(False)
    wait_until(lambda: (found := count_of(live_app, Stopped)) and found.count == 2, description="both are counted")


def test_a_job_that_is_killed_at_its_hard_limit_is_counted(live_app: ConventionsApp) -> None:
    """It cannot count itself any more."""
    wait_for_letter(live_app, Killed.delay().id)
    found = wait_until(lambda: count_of(live_app, Killed), description="the worker has counted it, after its letter")
    assert (found.count, found.longest) == (1, 2)


def test_the_tasks_with_most_such_jobs_come_first(store: Store) -> None:
    """And the longest of them is kept, whatever their order."""
    granularity = OverlongJobs(store)
    assert granularity.listing() == []
    for task, seconds in (("b", 70), ("a", 61.5), ("b", 90), ("b", 65)):
        granularity.note(task, f"{task}-{seconds}", seconds)
    first, second = granularity.listing()
    assert (first.task, first.count, first.longest, first.last_id) == ("b", 3, 90, "b-65")
    assert (second.task, second.count, second.longest) == ("a", 1, 61.5)


def test_what_was_mended_is_forgotten_some_day(store: Store) -> None:
    """A task that has not been too long for a month is not listed, and leaves nothing."""
    granularity = OverlongJobs(store)
    granularity.note("a", "id", 61)
    assert 29 * 86_400 < int(store.redis.ttl(store.key("too_long", "a"))) <= 30 * 86_400
    store.redis.delete(store.key("too_long", "a"))
    assert granularity.listing() == []
    assert store.redis.keys(store.key("*")) == []
