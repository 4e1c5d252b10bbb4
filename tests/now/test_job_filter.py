"""`JobFilter`: which jobs that run it lets through."""

from datetime import UTC, datetime, timedelta

import pytest

from conventions.now.job_filter import JobFilter

BEGAN = datetime(2026, 11, 30, 12, tzinfo=UTC)
RUNNING = ("shop.Charge", "money", "w1@host", "v7", BEGAN)


@pytest.mark.parametrize(
    "which",
    [
        JobFilter(),
        JobFilter(task="Charge"),
        JobFilter(task="shop.Charge", queue="money", worker="w1@host", release="v7"),
        JobFilter(since=BEGAN, until=BEGAN + timedelta(seconds=1)),
        JobFilter(actor="u-42"),
    ],
)
def test_what_runs_fits(which: JobFilter) -> None:
    """Each given field matches; who sent it is asked elsewhere."""
    assert which.fits_running(*RUNNING)


@pytest.mark.parametrize(
    "which",
    [
        JobFilter(task="harge"),
        JobFilter(queue="mon"),
        JobFilter(worker="w1"),
        JobFilter(release="v"),
        JobFilter(task="Charge", queue="money", worker="w1@host", release="v8"),
        JobFilter(since=BEGAN + timedelta(seconds=1)),
        JobFilter(until=BEGAN),
    ],
)
def test_what_runs_does_not_fit(which: JobFilter) -> None:
    """One field that does not match is enough."""
    assert not which.fits_running(*RUNNING)
