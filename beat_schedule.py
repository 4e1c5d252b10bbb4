"""When the tasks of this repository run, in the zone of the setting `timezone` (Asia/Tokyo). Beat reads `SCHEDULE`."""

from datetime import date, datetime, timedelta

from conventions import Schedule, cron, previous_day, week_of
from tasks.maintenance import BackupDatabase, PurgeOldData
from tasks.reports import DailyReport, WeeklyReport


def finished_week(planned: datetime) -> date:
    """The Monday of the week before the planned time's: on Monday morning, the week that has just ended."""
    return week_of(planned) - timedelta(weeks=1)


SCHEDULE = [
    # At 09:00 the day that can be reported in full is the one before.
    Schedule("daily-report", cron("0 9 * * *"), DailyReport, {"day": previous_day}),
    Schedule("weekly-report", cron("0 10 * * MON"), WeeklyReport, {"week": finished_week}),
    Schedule("clean-up", cron("0 2 * * *"), PurgeOldData),
    # The convention document names no time for the backup: after the clean-up, so that it copies no rows that are about
    # to be deleted, and done before office hours.
    Schedule("backup", cron("30 3 * * *"), BackupDatabase),
]
