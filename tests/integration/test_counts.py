"""A load of known outcome: the counts in Redis are the rows in SQL, and both are what was sent."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.metrics.event_sums import errors_in
from conventions.metrics.histogram import RUN, WAIT, Histogram
from conventions.metrics.read_counts import Counts
from conventions.records.journal import Journal
from conventions.storage.tables import ExecutionRow
from tests.console.flower_process import flower
from tests.recorded import contents
from tests.side_process import beside
from tests.support import patient, wait_until
from tests.workers import Installation, wait_until_empty

QUICK = RetryPolicy(attempts=3, first_wait=0.2, max_wait=0.3)


class Fine(ImmediateTask):
    """Succeed."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> int:
        return number


class Elsewhere(ImmediateTask):
    """Succeed, in a queue of its own."""

    queue_name = "elsewhere"
    not_idempotent = "a test"

    def run(self, number: int) -> int:
        return number


class Second(ImmediateTask):
    """Fail once, and succeed then."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = QUICK

    def run(self, number: int) -> int:
        if self.attempt == 1:
            raise LookupError(f"not yet: {number}")
        return number


class Never(ImmediateTask):
    """Fail at each attempt."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = QUICK

    def run(self, number: int) -> int:
        raise ArithmeticError(f"never: {number}")


class Refused(ImmediateTask):
    """Fail for good at once."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> int:
        raise BusinessError(f"no: {number}")


class Gate(ImmediateTask):
    """Wait for a file."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, file: Path) -> None:
        wait_until(file.exists)


def load() -> Counter[tuple[str, str, str]]:
    """Send jobs, and return how many attempts of each kind there must be, by task and queue."""
    Fine.enqueue_many([{"number": number} for number in range(200)])
    Elsewhere.enqueue_many([{"number": number} for number in range(30)])
    for number in range(7):
        Second.delay(number=number)
    for number in range(3):
        Never.delay(number=number)
        Refused.delay(number=number)
    Fine.apply_async(kwargs={"number": 3}, idempotency_key="once")
    Fine.apply_async(kwargs={"number": 3}, idempotency_key="once")
    Fine.apply_async(kwargs={"number": 900}, countdown=1.5)
    cancelled = Fine.apply_async(kwargs={"number": 901}, countdown=1.5)
    assert Fine.cancel(cancelled.id) == "queued"
    name = Fine.name.removesuffix("Fine")
    return Counter(
        {
            (f"{name}Fine", "immediate", "succeeded"): 202,
            (f"{name}Fine", "immediate", "duplicate"): 1,
            (f"{name}Fine", "immediate", "cancelled"): 1,
            (f"{name}Elsewhere", "elsewhere", "succeeded"): 30,
            (f"{name}Second", "immediate", "retried"): 7,
            (f"{name}Second", "immediate", "succeeded"): 7,
            (f"{name}Never", "immediate", "retried"): 6,
            (f"{name}Never", "immediate", "dead"): 3,
            (f"{name}Refused", "immediate", "dead"): 3,
        }
    )


def rows_of(app: ConventionsApp) -> list[dict[str, Any]]:
    """The executions, once all are recorded."""
    wait_until_empty(app)
    wait_until(lambda: Journal(app.store).length() == 0, 30, "the journal is recorded")
    return contents(app.database, ExecutionRow)


def served(installation: Installation) -> str:
    """What `metrics --port` answers."""
    with beside(installation, "metrics", "--port=0") as metrics:
        return httpx.get(f"http://{metrics.serves()}/metrics", timeout=patient(10)).text


def of_flower(installation: Installation) -> str:
    """What Flower's page answers."""
    with flower(installation) as address:
        return httpx.get(f"{address}/metrics", timeout=patient(10)).text


@pytest.mark.everyday
def test_counts_of_a_known_load(live_app: ConventionsApp, module_installation: Installation) -> None:
    """Kind by kind, error by error; times to the microsecond; and none is left as one that is tried again."""
    app = live_app
    expected = load()
    rows = rows_of(app)
    # On a busy machine a start may go back, and the job run once more: that is a row of its own.
    outcomes = Counter((row["task"], row["queue"], row["kind"]) for row in rows if row["kind"] != "interrupted")
    assert outcomes == expected

    totals = Counts(app.store).totals()
    kinds = {kind for _, _, kind in expected}
    counted = {
        (series.task, series.queue, kind): counts[kind]
        for series, counts in totals.items()
        for kind in kinds & counts.keys()
    }
    assert counted == dict(expected)
    assert {name: count for counts in totals.values() for name, count in errors_in(counts)} == {
        "LookupError": 7, "ArithmeticError": 9, "BusinessError": 3,
    }  # fmt: skip

    for series, counts in totals.items():
        these = [row for row in rows if (row["task"], row["queue"]) == series]
        for name, column in ((RUN, "runtime"), (WAIT, "wait")):
            seconds = [row[column] for row in these if row[column] is not None]
            found = Histogram.of(name, counts)
            assert found.count == len(seconds)
            assert found.seconds == pytest.approx(sum(seconds), abs=1e-6 * len(seconds))
    for name, text in (("the command", served(module_installation)), ("Flower", of_flower(module_installation))):
        families = {one.name: one for one in text_string_to_metric_families(text)}
        attempts = {
            (one.labels["task"], one.labels["queue"], one.labels["outcome"]): one.value
            for one in families["conventions_attempts"].samples
            if one.name == "conventions_attempts_total"
        }
        assert {of: count for of, count in attempts.items() if count and of[2] != "interrupted"} == dict(expected), name
        assert attempts[Gate.name, "immediate", "succeeded"] == 0, name
        waits = [one for one in families["conventions_attempt_wait_seconds"].samples if one.name.endswith("_count")]
        assert sum(one.value for one in waits) == sum(row["wait"] is not None for row in rows), name
    table = json.loads(module_installation.run("metrics", "--json").stdout)
    shown = {(row["task"], kind): row[kind] for row in table for kind in ("succeeded", "retried", "dead") if row[kind]}
    assert shown == {
        (task, kind): count for (task, _, kind), count in expected.items() if kind in ("succeeded", "retried", "dead")
    }
    (never,) = [row for row in table if row["task"] == Never.name]
    assert (never["failure_percent"], never["retry_percent"]) == (100.0, 66.67)

    assert Counts(app.store).retrying() == {}
    causes = {cause.error: (cause.retrying, cause.retried, cause.dead) for cause in Counts(app.store).causes()}
    assert causes == {"LookupError": (0, 7, 0), "ArithmeticError": (0, 6, 3), "BusinessError": (0, 0, 3)}


def test_a_deliberate_delay_is_no_wait(live_app: ConventionsApp) -> None:
    """Neither a countdown nor the wait of a retry. What stands behind a busy worker waits."""
    delayed = Fine.apply_async(kwargs={"number": 1000}, countdown=10)
    retried = Second.delay(number=1000)
    rows = rows_of(live_app)
    waits = {
        (row["message_id"], row["attempt"]): row["wait"]
        for row in rows
        if row["message_id"] in (delayed.id, retried.id)
    }
    assert waits.keys() == {(delayed.id, 1), (retried.id, 1), (retried.id, 2)}
    assert max(waits.values()) < 8, waits


@pytest.fixture
def alone(
    request: pytest.FixtureRequest, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> Installation:
    """An installation of the test's own, with these tasks."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path)}
    return Installation(tmp_path, [request.module.__name__], [request.path.parent], **settings)


def test_what_stands_behind_a_busy_worker_waits(alone: Installation) -> None:
    """From its send to its start. Each attempt has the release of its worker."""
    go = alone.folder / "go"
    with alone.application() as app, alone.worker("--concurrency=1", CONVENTIONS_RELEASE="2026.11"):
        Gate.delay(file=go)
        behind = Fine.delay(number=1)
        since = time.monotonic()
        wait_until(lambda: time.monotonic() - since > 1.2)
        go.touch()
        (row,) = [row for row in rows_of(app) if row["message_id"] == behind.id]
        assert row["wait"] > 1.1
        assert row["release"] == "2026.11"
        assert {*Counts(app.store).releases()} == {"2026.11"}
