"""A moment as people write it: a time, or how long ago; and an end: a time, or in how long."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from conventions.core.time_units import moment_ahead, moment_or_age

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
TOKYO = ZoneInfo("Asia/Tokyo")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", datetime(2026, 11, 30, 10, tzinfo=UTC)),
        (" 1h30m ", datetime(2026, 11, 30, 10, 30, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 23, 12, tzinfo=UTC)),
        ("2026-11-25T09:00", datetime(2026, 11, 25, 0, tzinfo=UTC)),
        ("2026-11-25 09:00", datetime(2026, 11, 25, 0, tzinfo=UTC)),
        ("2026-11-25", datetime(2026, 11, 24, 15, tzinfo=UTC)),
        ("2026-11-25T09:00+01:00", datetime(2026, 11, 25, 8, tzinfo=UTC)),
        ("2026-11-25T09:00Z", datetime(2026, 11, 25, 9, tzinfo=UTC)),
    ],
)
def test_times_and_ages(text: str, expected: datetime) -> None:
    """A time without a zone is one of the zone of the settings."""
    found = moment_or_age(text, NOW, TOKYO)
    assert (found, found.utcoffset()) == (expected, expected.utcoffset())


@pytest.mark.parametrize(
    "text", ["", "soon", "2", "2 hours", "0001-01-01T00:00", "9" * 5000 + "s", "9999999d", "2026-13-01"]
)
def test_what_is_neither(text: str) -> None:
    """Says how to write it."""
    with pytest.raises(ValueError, match="2026-11-25T09:00, or as an age like 30m"):
        moment_or_age(text, NOW, TOKYO)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", datetime(2026, 11, 30, 14, tzinfo=UTC)),
        ("7d", datetime(2026, 12, 7, 12, tzinfo=UTC)),
        ("2026-12-01", datetime(2026, 11, 30, 15, tzinfo=UTC)),
        (" 2026-12-01 09:00 ", datetime(2026, 12, 1, 0, tzinfo=UTC)),
        ("2026-12-01T09:00+01:00", datetime(2026, 12, 1, 8, tzinfo=UTC)),
    ],
)
def test_ends(text: str, expected: datetime) -> None:
    """A length counts from now; a time without a zone is one of the zone of the settings."""
    found = moment_ahead(text, NOW, TOKYO)
    assert (found, found.utcoffset()) == (expected, expected.utcoffset())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("soon", "'soon' is no length of time; .*; or give a date"),
        ("x" * 5000, "'x{40}' is no length"),
        ("", "'' is no length"),
        ("9999999d", "too long"),
        ("0s", "0s is not in the future: here it is 2026-11-30 21:00:00 JST"),
        ("0001-01-01", "not in the future"),
        ("2026-11-30T12:00Z", "not in the future"),
        ("9999-12-31T23:59-12:00", "too far away; the furthest is in 36500 days"),
    ],
)
def test_what_is_no_end(text: str, fault: str) -> None:
    """Says what is wrong, and what it is now where people are."""
    with pytest.raises(ValueError, match=fault):
        moment_ahead(text, NOW, TOKYO)
