"""Slots of `every`."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conventions.core.errors import ScheduleError
from conventions.schedules.interval import every

TOKYO = ZoneInfo("Asia/Tokyo")
ANY_MOMENT = st.integers(631_152_000, 2_208_988_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@settings(deadline=None)
@given(st.integers(1, 200_000), ANY_MOMENT)
def test_every_is_due_at_multiples_since_the_epoch(seconds: int, at: datetime) -> None:
    """Both neighbours of any moment are multiples of the interval since the epoch, one interval apart."""
    when = every(timedelta(seconds=seconds))
    latest, following = when.latest_slot(at, TOKYO), when.next_slot(at, TOKYO)
    assert latest is not None
    assert following is not None
    assert latest.timestamp() <= at.timestamp() < following.timestamp()
    assert latest.timestamp() % seconds == 0
    assert following - latest == timedelta(seconds=seconds)


@pytest.mark.parametrize("interval", [0, -5, 0.5, 1.5, timedelta(milliseconds=100), timedelta(0), True, "60"])
def test_a_wrong_interval_is_refused(interval: float | timedelta) -> None:
    """An interval is a whole number of seconds, at least one."""
    with pytest.raises(ScheduleError, match="every"):
        every(interval)


def test_an_interval_can_be_read_in_words() -> None:
    """In the largest unit that it is a whole number of."""
    assert [str(every(n)) for n in (1, 90, 120, 7200)] == ["every 1s", "every 90s", "every 2m", "every 2h"]
