"""How values are shown."""

import json
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.console import display, hidden_values
from conventions.core.durations import duration
from conventions.core.time_units import local_time

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def test_times_are_those_of_the_settings() -> None:
    """A day in Tokyo begins nine hours earlier."""
    assert local_time(datetime(2026, 11, 25, 20, 0, 1, tzinfo=UTC), "Asia/Tokyo") == "2026-11-26 05:00:01 JST"
    assert local_time(None, "Asia/Tokyo") == ""


def test_the_time_of_a_line_of_a_log() -> None:
    """To the millisecond; what is no time stays."""
    assert display.log_time("2026-11-25T20:00:01.045+00:00", "Asia/Tokyo") == "2026-11-26 05:00:01.045 JST"
    for odd in ("", "soon", "2026-11-25T20:00:01"):
        assert display.log_time(odd, "Asia/Tokyo") == odd


def test_a_name_breaks_where_it_may() -> None:
    """After a sign, before a capital, and in what is long; and nothing of it is HTML."""
    for name, pieces in {
        "system": ["system"],
        "w2@box": ["w2@", "box"],
        "shop.mail.SendEmail": ["shop.", "mail.", "Send", "Email"],
        "payments-eu_west": ["payments-", "eu_", "west"],
        "HTTPError": ["HTTPError"],
        "IOError": ["IOError"],
        "x" * 50: ["x" * 24, "x" * 24, "xx"],
        "a<b>&": ["a&lt;b&gt;&amp;"],
        "": [],
    }.items():
        assert display.soft(name).split("<wbr>") == (pieces or [""]), name
    assert display.soft(None) == ""


def test_times_in_the_audit() -> None:
    """Ours are those of the settings; an argument of a job is shown as it is."""
    at = "2026-11-25T20:00:01+00:00"
    values = {"until": at, "reason": at, "ids": [at]}
    shown = {"until": "2026-11-26 05:00:01 JST", "reason": at, "ids": [at]}
    assert json.loads(hidden_values.audit_text("queue pause", values, "Asia/Tokyo", hidden=False)) == shown
    assert json.loads(hidden_values.audit_text("dead-letters edit", values, "Asia/Tokyo", hidden=False)) == values
    assert at not in hidden_values.audit_text("queue pause", values, "Asia/Tokyo", hidden=True)
    for odd in (None, "a text", {"until": None}, {"until": 7}):
        assert json.loads(hidden_values.audit_text("queue pause", odd, "Asia/Tokyo", hidden=False)) == odd


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "now"), (59, "59 s ago"), (60, "1 min ago"), (7200, "2 h ago"), (3 * 86400, "3 d ago")]
)
def test_how_long_ago(seconds: int, text: str) -> None:
    """In the largest unit; a clock that is a little ahead is no surprise."""
    assert display.ago(NOW - timedelta(seconds=seconds), NOW) == text
    assert display.ago(NOW + timedelta(seconds=seconds + 1), NOW) == "now"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1 s"), (0.2, "1 s"), (59.4, "59 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (3659, "1 h"),
        (4805, "1 h 20 min"), (90_000, "1 d 1 h"), (1e7, "115 d 17 h"),
    ],
)  # fmt: skip
def test_how_long(seconds: float, text: str) -> None:
    """In two units at the most, and never nothing."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.2, "0 s"),
        (0.04, "0 s"),
        (0.12, "0.1 s"),
        (3.0, "3 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (83.4, "1 min 23 s"),
    ],
)
def test_how_long_something_short_took(seconds: float, text: str) -> None:
    """To a tenth of a second, where that says something."""
    assert display.short_duration(seconds) == text


def test_a_version_is_another_one_as_soon_as_something_is() -> None:
    """And the same for the same, also with half characters in it."""
    assert display.content_version([1, "a\ud800"]) == display.content_version([1, "a\ud800"])
    assert display.content_version([1, "a"]) != display.content_version([1, "b"])


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0, "0/s"),
        (0.0001, "0.36/h"),
        (0.01, "36/h"),
        (0.5, "30/min"),
        (1, "1/s"),
        (3.14, "3.1/s"),
        (12_345, "12,345/s"),
    ],
)
def test_how_fast(rate: float, text: str) -> None:
    """A number that can be read, also of what is slow."""
    assert display.rate_text(rate) == text


def test_hidden_arguments_keep_their_names_only() -> None:
    """Whatever the value is."""
    secret = {"user": "anna", "list": ["anna"], "in": {"anna": 1}}
    text = hidden_values.arguments_text(secret, hidden=True)
    assert "anna" not in text
    assert all(name in text for name in secret)
    assert "anna" not in hidden_values.arguments_text(["anna"], hidden=True)
    assert "anna" in hidden_values.arguments_text(secret, hidden=False)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=48))
def test_a_sparkline_fits_and_shows_whatever_is_there(counts: list[int]) -> None:
    """Every hour has a bar within the picture, and an hour with one letter can be told from one with none."""
    picture = ET.fromstring(display.sparkline(counts))  # our own
    bars = picture.findall("rect")
    assert [bar.get("class") == "some" for bar in bars] == [count > 0 for count in counts]
    for bar, count in zip(bars, counts, strict=True):
        height, y = int(bar.get("height", "")), int(bar.get("y", ""))
        assert height + y == display.HEIGHT
        assert (2 if count else 1) <= height <= display.HEIGHT
        assert int(bar.get("x", "")) + display.BAR <= int(picture.get("width", ""))
    assert f"{sum(counts):,}" in picture.get("aria-label", "")
