"""Reports by day and by week (R10)."""

from datetime import date, timedelta
from pathlib import Path

from conventions import ScheduledTask
from tasks.report_data import collect
from tasks.report_files import write_report


class DailyReport(ScheduledTask):
    """Write one day's report of e-mails and contacts, as CSV and as HTML.

    Fired by the schedule it runs once for each planned time; sent by hand it runs each time, and writes the files
    of that day again.
    """

    def run(self, day: date) -> list[str]:
        """Write `reports/daily-<day>.csv` and `.html` below the output folder and return their paths."""
        settings = self.app.settings
        with self.app.database.session() as session:
            figures = collect(session, day, 1, settings.timezone)
        target = Path(settings.output_dir) / "reports" / f"daily-{day}"
        return write_report(figures, f"Daily report, {day:%A} {day}", target)


class WeeklyReport(ScheduledTask):
    """Write one week's report of e-mails and contacts, as CSV and as HTML.

    Idempotent as the daily report is.
    """

    def run(self, week: date) -> list[str]:
        """Write `reports/weekly-<year>-W<week>.csv` and `.html` and return their paths.

        Args:
            week: the Monday of the week; any other day stands for its week (ISO 8601).
        """
        settings = self.app.settings
        monday = week - timedelta(days=week.weekday())
        with self.app.database.session() as session:
            figures = collect(session, monday, 7, settings.timezone)
        target = Path(settings.output_dir) / "reports" / f"weekly-{monday:%G-W%V}"
        return write_report(figures, f"Weekly report, {monday} to {monday + timedelta(days=6)}", target)
