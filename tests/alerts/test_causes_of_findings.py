"""A finding names the cause of what failed within its window, whatever failed before."""

from typing import Any

import pytest

from conventions.alerts.finding import Finding
from conventions.alerts.what_rules_see import look_at
from conventions.app import ConventionsApp
from conventions.core.alert_thresholds import Thresholds
from conventions.core.error_text import FailureText
from conventions.metrics.event_counter import EventCounter
from conventions.metrics.read_counts import Counts, Failed
from tests.recorded import append, entry, event
from tests.seen_findings import findings

OLD = FailureText("BusinessError", "no user of this name", "", "f1")
NEW = FailureText("PayloadError", "no such field", "", "f2")


@pytest.fixture
def now(app: ConventionsApp) -> int:
    """The present minute since the epoch. The next one may begin during a test: no test stands at the edge of a window."""
    return Counts(app.store).this_minute()


def failed(app: ConventionsApp, minute: int, number: int, failure: FailureText, kind: str = "dead") -> None:
    """So many jobs failed ten seconds after a minute began."""
    name = f"{minute} {failure.fingerprint} {kind}"
    append(
        app.store,
        *(
            entry(event(f"{name} {n}", kind, task="shop.Invoice", failure=failure), at=minute * 60_000 + 10_000)
            for n in range(number)
        ),
    )


def found(app: ConventionsApp, rule: str) -> Finding:
    """What one rule finds."""
    EventCounter(app.store).count_all()
    thresholds = Thresholds()
    (one,) = [one for one in findings(look_at(app, thresholds), thresholds) if one.rule == rule]
    return one


@pytest.mark.parametrize(("kind", "rule"), [("dead", "failure rate"), ("retried", "retrying")])
def test_the_cause_is_that_of_the_window(app: ConventionsApp, now: int, kind: str, rule: str) -> None:
    """The larger one has ended before; of two within it, the one by which most failed."""
    failed(app, now - 25, 260, OLD, kind)
    failed(app, now - 2, 1, OLD, kind)
    failed(app, now - 2, 30, NEW, kind)
    failed(app, now - 1, 30, NEW, kind)
    one = found(app, rule)
    assert one.detail == "PayloadError: no such field"
    assert one.since == (now - 2) * 60 + 10


def test_dead_letters_have_a_window_of_their_own(app: ConventionsApp, now: int) -> None:
    """It is longer than that of the failure rate."""
    failed(app, now - 40, 260, OLD)
    failed(app, now - 8, 60, NEW)
    one = found(app, "dead letters")
    assert (one.detail, one.since) == ("PayloadError: no such field", (now - 8) * 60 + 10)


def test_a_cause_that_came_back_began_when_it_came_back(app: ConventionsApp, now: int) -> None:
    """Not when it was first seen: it was quiet for longer than the window. Only the minute is known."""
    failed(app, now - 50, 260, NEW)
    failed(app, now - 6, 30, NEW)
    failed(app, now - 2, 30, NEW)
    assert found(app, "failure rate").since == (now - 6) * 60


def test_failures_by_minute(app: ConventionsApp, now: int) -> None:
    """Each once, by the minute of its end; they live as long as the other counts by minute."""
    failed(app, now - 2, 3, OLD)
    failed(app, now - 1, 1, OLD)
    failed(app, now - 1, 2, OLD, "retried")
    EventCounter(app.store).count_all()
    assert Counts(app.store).failed(now - 3, now) == {
        now - 2: {Failed("f1", "dead"): 3},
        now - 1: {Failed("f1", "dead"): 1, Failed("f1", "retried"): 2},
    }
    redis: Any = app.store.redis
    assert 7_700_000 < redis.pttl(app.store.key("counts", "failed", str(now - 2))) <= 7_800_000
