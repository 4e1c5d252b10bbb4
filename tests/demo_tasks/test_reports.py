"""The reports: what they count, where a day begins, and what is in the files."""

import csv
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from conventions.app import ConventionsApp
from conventions.storage.database import Database
from tasks.report_data import bounds, collect
from tasks.reports import DailyReport, WeeklyReport
from tasks.tables import EmailLog
from tests.demo_settings import settings_of

TOKYO = ZoneInfo("Asia/Tokyo")
MONDAY = date(2026, 1, 5)


@pytest.fixture
def log(add_contact: Callable[..., int]) -> Callable[..., None]:
    """Put one sent e-mail into the log."""
    numbers: Iterator[int] = iter(range(1, 1000))

    def log(database: Database, template: str, sent_at: datetime) -> None:
        number = next(numbers)
        row = EmailLog(
            user_id=number, template_id=template, day=sent_at.date(), job_id=f"job-{number}",
            recipient="a@example.com", message_id=f"<{number}@example.com>", sent_at=sent_at,
        )  # fmt: skip
        with database.session() as session:
            session.add(row)

    return log


def read(path: str) -> list[list[str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_a_day_begins_at_midnight_in_tokyo(database: Database, log: Callable[..., None]) -> None:
    """The last second of a day counts, the first of the next does not; in UTC it is 15:00."""
    start = datetime(2026, 1, 5, tzinfo=TOKYO)
    for moment in (start - timedelta(seconds=1), start, start + timedelta(hours=24) - timedelta(seconds=1)):
        log(database, "welcome", moment)
    log(database, "newsletter", start + timedelta(hours=24))
    with database.session() as session:
        figures = collect(session, MONDAY, 1, "Asia/Tokyo")
    assert figures.sent == {"welcome": 2}


def test_a_day_of_a_clock_change_has_its_hours() -> None:
    """25 hours in Berlin in October."""
    start, end = bounds(date(2026, 10, 25), "Europe/Berlin")
    assert end.timestamp() - start.timestamp() == 25 * 3600


def test_contacts_are_counted_when_added_and_when_changed_later(
    database: Database, add_contact: Callable[..., int]
) -> None:
    """A new contact is no change."""
    before, noon = datetime(2026, 1, 4, 12, tzinfo=TOKYO), datetime(2026, 1, 5, 12, tzinfo=TOKYO)
    add_contact(database, "new@example.com", created_at=noon, updated_at=noon)
    add_contact(database, "changed@example.com", created_at=before, updated_at=noon)
    add_contact(database, "old@example.com", created_at=before, updated_at=before)
    with database.session() as session:
        figures = collect(session, MONDAY, 1, "Asia/Tokyo")
    assert (figures.days[0].contacts_added, figures.days[0].contacts_changed, figures.contacts_in_all) == (1, 1, 3)


def test_the_daily_report_is_a_table_and_a_page(app: ConventionsApp, log: Callable[..., None]) -> None:
    """Both carry the day in their names and the same numbers."""
    for template in ("welcome", "welcome", "news<letter>"):
        log(app.database, template, datetime(2026, 1, 5, 9, tzinfo=TOKYO))
    table, page = DailyReport.apply(kwargs={"day": MONDAY}).get()
    assert table == f"{settings_of(app).output_dir}/reports/daily-2026-01-05.csv"
    assert read(table) == [
        ["day", "measure", "template", "count"],
        ["2026-01-05", "emails_sent", "news<letter>", "1"],
        ["2026-01-05", "emails_sent", "welcome", "2"],
        ["2026-01-05", "emails_sent", "", "3"],
        ["2026-01-05", "contacts_added", "", "0"],
        ["2026-01-05", "contacts_changed", "", "0"],
    ]
    html = Page(Path(page).read_text(encoding="utf-8"))
    assert html.title == "Daily report, Monday 2026-01-05"
    assert html.cells[:2] == ["welcome", "2"]
    assert "news<letter>" in html.cells  # escaped, so it is text and no element
    assert not html.unclosed


def test_a_day_without_events_is_reported_too(app: ConventionsApp) -> None:
    """Nothing happened is an answer."""
    table, page = DailyReport.apply(kwargs={"day": MONDAY}).get()
    assert ["2026-01-05", "emails_sent", "", "0"] in read(table)
    assert "No e-mail was sent." in Path(page).read_text(encoding="utf-8")


@pytest.mark.parametrize("day", [MONDAY, date(2026, 1, 8), date(2026, 1, 11)])
def test_the_weekly_report_covers_the_week_of_its_day(app: ConventionsApp, log: Callable[..., None], day: date) -> None:
    """From Monday to Sunday, whichever day of the week it is asked for."""
    for moment in (datetime(2026, 1, 4, 23, 59, tzinfo=TOKYO), datetime(2026, 1, 5, tzinfo=TOKYO),
                   datetime(2026, 1, 11, 23, 59, tzinfo=TOKYO), datetime(2026, 1, 12, tzinfo=TOKYO)):  # fmt: skip
        log(app.database, "welcome", moment)
    table, page = WeeklyReport.apply(kwargs={"week": day}).get()
    assert Path(table).name == "weekly-2026-W02.csv"
    totals = [row for row in read(table) if row[1:3] == ["emails_sent", ""]]
    assert [row[3] for row in totals] == ["1", "0", "0", "0", "0", "0", "1"]
    html = Page(Path(page).read_text(encoding="utf-8"))
    assert html.title == "Weekly report, 2026-01-05 to 2026-01-11"
    assert "Sun 2026-01-11" in html.cells
    assert not html.unclosed


def test_a_report_made_again_replaces_the_old_one(app: ConventionsApp, log: Callable[..., None]) -> None:
    """Sent by hand it runs again, and the later numbers stand."""
    DailyReport.apply(kwargs={"day": MONDAY}).get()
    log(app.database, "welcome", datetime(2026, 1, 5, 9, tzinfo=TOKYO))
    table, _ = DailyReport.apply(kwargs={"day": MONDAY}).get()
    assert ["2026-01-05", "emails_sent", "welcome", "1"] in read(table)
    assert len(list(Path(table).parent.iterdir())) == 2


class Page(HTMLParser):
    """The title, the cells, and the elements that were not closed."""

    VOID = ("meta",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.title, self.cells, self.unclosed = "", list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, _attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.unclosed.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.unclosed.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.unclosed and self.unclosed[-1] in ("td", "th"):
            self.cells[-1] += data
        if self.unclosed and self.unclosed[-1] == "title":
            self.title += data
