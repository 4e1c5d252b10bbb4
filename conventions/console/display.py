"""How pages show values: times, numbers, names, sparklines. What is hidden from some: `hidden_values.py`."""

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Any
from zoneinfo import ZoneInfo

from conventions.core.durations import STEPS, duration
from conventions.core.time_units import moment
from conventions.progress.reporter import Progress

PLACES = re.compile(r"(?<=[.@_/:-])(?=[^.@_/:-])|(?<=[a-z0-9])(?=[A-Z][a-z])")  # where a name may break
LONGEST_PIECE = 24  # characters of a name that are never broken
BAR, GAP, HEIGHT = 4, 1, 24  # pixels of a sparkline


def log_time(text: str, zone: str) -> str:
    """The time of a line that a job has logged, in the time zone of the settings, to the millisecond."""
    found = moment(text)
    if found is None:
        return text
    there = found.astimezone(ZoneInfo(zone))
    return f"{there:%Y-%m-%d %H:%M:%S}.{there.microsecond // 1000:03} {there:%Z}"


def ago(when: datetime | None, now: datetime) -> str:
    """How long ago, in the largest fitting unit."""
    if when is None:
        return ""
    seconds = max(0, int((now - when).total_seconds()))
    for size, unit in STEPS:
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return "now"


def short_duration(seconds: float) -> str:
    """A short duration, below ten seconds to a tenth of a second: `0.1 s`, `3 s`, `1 min 20 s`."""
    tenths = max(0.0, round(seconds, 1))
    return f"{tenths:g} s" if tenths < 10 else duration(seconds)


def runtime_text(seconds: float) -> str:
    """How long an attempt ran, below ten seconds to a millisecond: `0.004 s`, `3.250 s`, `1 min 20 s`."""
    return f"{max(0.0, seconds):.3f} s" if seconds < 10 else duration(seconds)


def content_version(parts: object) -> str:
    """A short hash of the parts. It changes when they change."""
    return hashlib.sha256(repr(parts).encode(errors="replace")).hexdigest()[:16]


def rate_text(rate: float | None) -> str:
    """Items per second. For a slow rate: items per minute or per hour, so that the number is readable. Nothing for one that is unknown."""
    if rate is None:
        return ""
    sizes = ((1, "s"), (60, "min"), (3600, "h"))
    size, unit = next((one for one in sizes if not rate or rate * one[0] >= 1), sizes[-1])
    number = rate * size
    return f"{number:,.0f}/{unit}" if number >= 10 else f"{number:.2g}/{unit}"


def done_text(progress: Progress | None) -> str:
    """How much of a job is done: percent; where its total is not known, how many. Nothing where it has reported none."""
    if progress is None:
        return ""
    if progress.percent is not None:
        return f"{progress.percent} %"
    return f"{progress.done:,}" if progress.done else ""


def soft(name: str | None) -> str:
    """A name as HTML, which breaks after a sign, before a capital, or where nothing of the kind comes for long; nowhere else."""
    parts = (part for part in PLACES.split(name or ""))
    pieces = [part[at : at + LONGEST_PIECE] for part in parts for at in range(0, len(part), LONGEST_PIECE)]
    return "<wbr>".join(map(escape, pieces))


def as_json(value: Any) -> str:
    """A value as JSON text that can be shown and parsed again, even with lone surrogates."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=2)
    return text


def sparkline(counts: Sequence[int]) -> str:
    """Bars as SVG, oldest first. The highest bar fills the height; any count above 0 is visible."""
    most = max(counts, default=0)
    width = len(counts) * (BAR + GAP)
    bars = []
    for place, count in enumerate(counts):
        height = max(2, round(HEIGHT * count / most)) if count else 1
        kind = "some" if count else "none"
        bars.append(
            f'<rect class="{kind}" x="{place * (BAR + GAP)}" y="{HEIGHT - height}" width="{BAR}" height="{height}"/>'
        )
    label = f"{sum(counts):,} in the last {len(counts)} hours, {most:,} at most in one"
    return (
        f'<svg class="conventions-spark" role="img" aria-label="{label}" width="{width}" height="{HEIGHT}"'
        f' viewBox="0 0 {width} {HEIGHT}"><title>{label}</title>{"".join(bars)}</svg>'
    )
