"""When a redrive sends more, waits or stops: in numbers (R18)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conventions.dead_letters.redrive_pace_and_stop import (
    AT_ONCE,
    Recent,
    Tally,
    due,
    paced,
    plan,
    recent_share,
    recent_size,
    unanswered_limit,
    verdict,
)
from conventions.storage.tables import RedriveRow

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def redrive(**values: Any) -> RedriveRow:
    """A redrive of 5,000 letters."""
    defaults = {"state": "sending", "canary": 5, "rate": 10.0, "stop_at": 10.0, "total": 5000, "paced_at": None}
    return RedriveRow(**defaults | values)


@pytest.mark.parametrize(
    ("values", "counts", "limit"),
    [
        ({"state": "canary"}, Tally(unanswered=3), 5),
        ({}, Tally(succeeded=5), 5),
        ({}, Tally(succeeded=40), 20),
        ({}, Tally(succeeded=1200), 50),
        ({"rate": 100.0}, Tally(succeeded=1200), 200),
        ({"canary": 300}, Tally(succeeded=1200), 300),
        ({"canary": 0}, Tally(), 5),
        ({"canary": 0, "stop_at": 100.0}, Tally(), 5000),
    ],
)
def test_what_is_unanswered_is_bounded(values: dict[str, Any], counts: Tally, limit: int) -> None:
    """By the canary, then by half of what was answered, 50 letters or those of two seconds; who never stops waits for none."""
    assert unanswered_limit(redrive(**values), counts) == limit
    late = NOW - timedelta(days=1)
    found = plan(redrive(**values, paced_at=late), counts, Recent(), NOW, left=True)
    assert found.take <= min(limit - counts.unanswered, AT_ONCE)


def test_the_canary_waits_for_each_of_its_letters() -> None:
    """One that is tried again has answered, one that lies in its queue has not."""
    waits = plan(redrive(state="canary"), Tally(unanswered=1, succeeded=4), Recent(), NOW, left=True)
    assert (waits.state, waits.take) == ("canary", 0)
    goes_on = plan(redrive(state="canary"), Tally(succeeded=5), Recent(), NOW, left=True)
    assert goes_on.state == "sending"
    assert goes_on.take > 0


def test_retrying_counts_as_failing() -> None:
    """It need not be dead first, which takes ten attempts."""
    found = plan(redrive(state="canary"), Tally(unanswered=4, retrying=1), Recent(), NOW, left=True)
    assert (found.state, found.take) == ("stopped", 0)
    assert "1 of 1 failed again; that is more than 10 %" in found.note


def test_early_successes_do_not_hide_that_everything_fails_now() -> None:
    """Of 1,211 that were answered only half a percent fail; of the last fifty, more than a fifth."""
    counts = Tally(succeeded=1200, retrying=11)
    assert verdict(redrive(), counts, Recent(50, 10)) is None
    assert verdict(redrive(), counts, Recent(50, 11)) == "11 of the last 50 failed again; that is more than 20 %"
    assert verdict(redrive(), counts, Recent(20, 20)) is None, "of so few, all of them are judged"
    assert "120 of 1000" in str(verdict(redrive(), Tally(succeeded=880, dead=120), Recent(50, 0)))


@pytest.mark.parametrize(
    ("stop_at", "size", "share"),
    [(10.0, 50, 20.0), (1.0, 500, 2.0), (0.0, 50, 0.0), (50.0, 50, 75.0), (100.0, 50, 100.0)],
)
def test_recent_letters_are_judged_with_more_patience(stop_at: float, size: int, share: float) -> None:
    """Chance alone stops nothing; and all that fail are always too many, unless it never stops."""
    assert (recent_size(stop_at), recent_share(stop_at)) == (size, share)
    stops = verdict(redrive(stop_at=stop_at), Tally(succeeded=10**6, dead=size), Recent(size, size))
    assert (stops is None) == (stop_at == 100)


def test_its_end() -> None:
    """Nothing is stopped where nothing is left: it ends with its letters."""
    assert plan(redrive(), Tally(retrying=1, succeeded=4999), Recent(), NOW, left=False).state == "sending"
    assert plan(redrive(), Tally(succeeded=5000), Recent(), NOW, left=False).state == "finished"
    missing = plan(redrive(), Tally(succeeded=4990), Recent(), NOW, left=False)
    assert (missing.state, missing.note) == ("finished", "10 not dead any more when it was their turn")
    assert plan(redrive(total=2), Tally(dead=2), Recent(), NOW, left=False).state == "stopped"


@pytest.mark.parametrize("rate", [0.1, 3.0, 10.0, 500.0])
def test_the_rate_holds_over_time(rate: float) -> None:
    """Looked at every quarter of a second for ten minutes; a long rest is not made up for."""
    row, sent = redrive(rate=rate), 0
    for look in range(2400):
        now = NOW + timedelta(seconds=look / 4)
        count = due(row, now)
        sent, row.paced_at = sent + count, paced(row, count, now)
    assert sent == pytest.approx(600 * rate, abs=max(rate, 2))
    row.paced_at = NOW - timedelta(hours=1)
    assert due(row, NOW) == max(round(rate), 1)
    row.paced_at = NOW + timedelta(hours=1)  # of a machine with another clock
    assert due(row, NOW) == max(round(rate), 1)
