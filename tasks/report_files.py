"""Figures written as CSV, for programs, and as a page of HTML, for people."""

import csv
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from zoneinfo import ZoneInfo

from tasks.files import atomic
from tasks.report_data import DayFigures, Figures

COLUMNS = ("day", "measure", "template", "count")

PAGE = Path(__file__).with_name("templates") / "report.html"


def write_report(figures: Figures, title: str, target: Path) -> list[str]:
    """Write `<target>.csv` and `<target>.html`; return both paths. Each is written whole or not at all."""
    table, page = target.with_name(f"{target.name}.csv"), target.with_name(f"{target.name}.html")
    with atomic(table) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_rows(figures))
    with atomic(page) as draft:
        draft.write_text(_page(figures, title), encoding="utf-8")
    return [str(table), str(page)]


def _rows(figures: Figures) -> list[tuple[str, str, str, int]]:
    rows = []
    for day in figures.days:
        date = day.day.isoformat()
        rows += [(date, "emails_sent", template, day.sent[template]) for template in sorted(day.sent)]
        rows.append((date, "emails_sent", "", day.emails))
        rows.append((date, "contacts_added", "", day.contacts_added))
        rows.append((date, "contacts_changed", "", day.contacts_changed))
    return rows


def _page(figures: Figures, title: str) -> str:
    now = datetime.now(ZoneInfo(figures.zone))
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        emails=f"{sum(figures.sent.values()):,}",
        added=f"{sum(day.contacts_added for day in figures.days):,}",
        changed=f"{sum(day.contacts_changed for day in figures.days):,}",
        contacts=f"{figures.contacts_in_all:,}",
        templates=_template_table(figures),
        days=_day_table(figures) if len(figures.days) > 1 else "",
        written=f"{now:%Y-%m-%d %H:%M}",
        zone=escape(figures.zone),
    )


def _template_table(figures: Figures) -> str:
    sent = figures.sent
    if not sent:
        return "<p>No e-mail was sent.</p>"
    most = max(sent.values())
    rows = "".join(
        f'<tr><th scope="row">{escape(template)}</th><td class="number">{sent[template]:,}</td>'
        f'<td class="bar"><span style="width:{100 * sent[template] / most:.1f}%"></span></td></tr>'
        for template in figures.templates
    )
    return f"<h2>E-mails by template</h2><table><tbody>{rows}</tbody></table>"


def _day_table(figures: Figures) -> str:
    names = ("E-mails", "Contacts added", "Contacts changed")
    head = "".join(f'<th scope="col" class="number">{name}</th>' for name in names)
    rows = "".join(_day_row(day) for day in figures.days)
    return (
        f'<h2>Day by day</h2><table><thead><tr><th scope="col">Day</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def _day_row(day: DayFigures) -> str:
    cells = "".join(
        f'<td class="number">{count:,}</td>' for count in (day.emails, day.contacts_added, day.contacts_changed)
    )
    return f'<tr><th scope="row">{day.day:%a %Y-%m-%d}</th>{cells}</tr>'
