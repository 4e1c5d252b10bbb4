"""The page *Now*, at `/`: one overview, live every two seconds. It reads the same as `celery -A <app> now` (R13)."""

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from conventions.console import display, plots
from conventions.console.page import Page
from conventions.core.durations import duration
from conventions.execution.application import Application
from conventions.now.overview import MinuteNow, Overview, overview_of

FRESH = 1.5  # seconds for which all visitors share one look
SHOWN, MOST_FINDINGS = 50, 20  # rows of a table, and things that are wrong


class _Looks:
    """The last look at an application, for all visitors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._overview: Overview | None = None
        self._until = 0.0
        self._changes = 0

    def forget(self) -> None:
        """Let the next visitor see what was just changed: also a look that began before is too old."""
        self._changes += 1
        self._until = 0.0

    def look(self, app: Application) -> Overview:
        """Look, unless somebody has just looked."""
        last = self._overview
        # While somebody waits for a server that stands still, others see the last look: the page says of when it is.
        if not self._lock.acquire(blocking=last is None or not self._until) and last is not None:
            return last
        try:
            if self._overview is None or time.monotonic() > self._until:
                changes = self._changes
                self._overview = overview_of(app)
                self._until = time.monotonic() + FRESH if changes == self._changes else 0.0
            return self._overview
        finally:
            self._lock.release()


LOOKS = _Looks()


class NowPage(Page):
    """`/`: the overview."""

    tab = "main"
    title = "Now"

    async def get(self) -> None:
        """Show it."""
        overview = await self.in_thread(LOOKS.look, self.capp)
        zone = ZoneInfo(self.capp.settings.timezone)
        self.show(
            "conventions_now.html",
            overview=overview,
            shown=SHOWN,
            most_findings=MOST_FINDINGS,
            sees_values=self.visitor.sees_values,
            jobs_plot=_jobs_plot(overview.minutes, zone),
            wait_plot=_wait_plot(overview.minutes, zone),
            length=lambda seconds: "" if seconds is None else duration(seconds),
            short=display.short_duration,
            rate=display.rate_text,
            done=display.done_text,
            number=lambda count: "" if count is None else f"{count:,}",
            at=lambda seconds: None if seconds is None else datetime.fromtimestamp(seconds, UTC),
        )


def _labels(minutes: Sequence[MinuteNow], zone: ZoneInfo) -> list[str]:
    return [datetime.fromtimestamp(one.minute * 60, UTC).astimezone(zone).strftime("%H:%M") for one in minutes]


def _frame(title: str, minutes: Sequence[MinuteNow], zone: ZoneInfo) -> plots.Frame:
    marks = [(place, "; ".join(one.marks)) for place, one in enumerate(minutes) if one.marks]
    return plots.Frame(title, _labels(minutes, zone), marks)


def _jobs_plot(minutes: Sequence[MinuteNow], zone: ZoneInfo) -> str:
    tracks = [plots.Track(kind, [one.figures.of(kind) for one in minutes]) for kind in ("succeeded", "retried", "dead")]
    return plots.bars(_frame("Attempts by the minute", minutes, zone), tracks)


def _wait_plot(minutes: Sequence[MinuteNow], zone: ZoneInfo) -> str:
    shares = (("p50", 0.5), ("p95", 0.95))
    tracks = [plots.Track(name, [one.figures.wait.quantile(share) for one in minutes]) for name, share in shares]
    unmarked = plots.Frame("Wait by the minute", _labels(minutes, zone))
    return plots.lines(unmarked, tracks, "s")
