"""What happened in a stretch of days, counted in SQL."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tasks.tables import Contact, EmailLog


@dataclass(frozen=True, slots=True)
class DayFigures:
    """One day's counts. `sent` is by template; contacts are those created and those changed later on that day."""

    day: date
    sent: dict[str, int]
    contacts_added: int
    contacts_changed: int

    @property
    def emails(self) -> int:
        """E-mails of all templates."""
        return sum(self.sent.values())


@dataclass(frozen=True, slots=True)
class Figures:
    """The counts of consecutive days in one time zone."""

    days: tuple[DayFigures, ...]
    zone: str
    contacts_in_all: int

    @property
    def templates(self) -> list[str]:
        """Every template that was used, the most used first."""
        totals = self.sent
        return sorted(totals, key=lambda template: (-totals[template], template))

    @property
    def sent(self) -> dict[str, int]:
        """E-mails by template over all days."""
        totals: dict[str, int] = {}
        for day in self.days:
            for template, count in day.sent.items():
                totals[template] = totals.get(template, 0) + count
        return totals


def collect(session: Session, first: date, days: int, zone: str) -> Figures:
    """Count what happened on `days` days from `first` on; a day begins at midnight in `zone`."""
    dates = [first + timedelta(days=offset) for offset in range(days)]
    return Figures(
        days=tuple(_one_day(session, day, zone) for day in dates),
        zone=zone,
        contacts_in_all=session.scalar(select(func.count()).select_from(Contact)) or 0,
    )


def bounds(day: date, zone: str) -> tuple[datetime, datetime]:
    """The first moment of the day in that zone, and of the next day.

    >>> bounds(date(2026, 1, 1), "Asia/Tokyo")[0].isoformat()
    '2026-01-01T00:00:00+09:00'
    """
    place = ZoneInfo(zone)
    return datetime.combine(day, time(), place), datetime.combine(day + timedelta(days=1), time(), place)


def _one_day(session: Session, day: date, zone: str) -> DayFigures:
    start, end = bounds(day, zone)
    sent = session.execute(
        select(EmailLog.template_id, func.count())
        .where(EmailLog.sent_at >= start, EmailLog.sent_at < end)
        .group_by(EmailLog.template_id)
    )
    added = select(func.count()).where(Contact.created_at >= start, Contact.created_at < end)
    changed = select(func.count()).where(
        Contact.updated_at >= start, Contact.updated_at < end, Contact.updated_at > Contact.created_at
    )
    return DayFigures(
        day=day,
        sent=dict(sent.all()),
        contacts_added=session.scalar(added) or 0,
        contacts_changed=session.scalar(changed) or 0,
    )
