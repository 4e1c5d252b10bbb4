"""Times and lengths of time, as scripts, Redis and headers have them."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

_AGE = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
LONGEST = timedelta(days=36_500)
_UNITS = ("days", "hours", "minutes", "seconds")


def milliseconds(length: float | timedelta) -> int:
    """A length of time, in seconds or as a `timedelta`, in whole milliseconds."""
    return round((length.total_seconds() if isinstance(length, timedelta) else length) * 1000)


def count_in(value: bytes | str) -> int:
    """A count or a time as Redis has it; 0 for what is none, since another program may have written it."""
    try:
        return max(int(value), 0)
    except ValueError:
        return 0


def moment(text: datetime | str | None) -> datetime | None:
    """The time in a header. `None` if it is not a time, since another program may have written it."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(str(text))
        if moment.tzinfo is UTC:
            return moment
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def local_time(moment: datetime | None, zone: str) -> str:
    """A time in the time zone of the settings, to the second, with the zone's name."""
    return "" if moment is None else moment.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S %Z")


def age(text: str) -> timedelta:
    """A length of time such as `90s`, `15m`, `2h30m` or `7d`. Raises: ValueError."""
    match = _AGE.fullmatch(text.strip())
    if not match or not any(match.groups()):
        raise ValueError(f"{text[:40]!r} is no length of time; write it like 45s, 15m, 2h30m or 7d")
    try:
        found = timedelta(**{unit: int(part) for unit, part in zip(_UNITS, match.groups(), strict=True) if part})
    except (OverflowError, ValueError):  # or more digits than Python accepts
        found = timedelta.max
    if found > LONGEST:
        raise ValueError(f"{text[:40]!r} is too long; the longest is {LONGEST.days}d")
    return found


def moment_or_age(text: str, now: datetime, zone: tzinfo) -> datetime:
    """The moment that a person wrote, in UTC: a time in ISO 8601, or an age such as `2h`, which counts back from `now`.

    Args:
        text: what was written.
        now: the present moment.
        zone: of a time that names none.

    Raises:
        ValueError: it is neither.
    """
    try:
        return now - age(text)
    except (ValueError, OverflowError):  # no age, or one from before the calendar
        pass
    try:
        written = datetime.fromisoformat(text.strip())
        return (written.replace(tzinfo=zone) if written.tzinfo is None else written).astimezone(UTC)
    except (ValueError, OverflowError):
        fault = f"{text[:40]!r} is no time: write it like 2026-11-25T09:00, or as an age like 30m, 2h or 7d"
        raise ValueError(fault) from None


def moment_ahead(text: str, now: datetime, zone: tzinfo) -> datetime:
    """The end that a person wrote, such as that of a pause, in UTC.

    Args:
        text: a length of time from now, such as `2h`; or a date, which means its midnight; or a date and time, as ISO 8601.
        now: the present moment.
        zone: of a text that names none.

    Raises:
        ValueError: it is none of these, not in the future, or too far away.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            moment = now + age(text)
        except ValueError as error:
            raise ValueError(f"{error}; or give a date, or a date and time: 2026-12-01, 2026-12-01T09:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    if moment <= now:
        here = now.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %Z")
        raise ValueError(f"{text[:40]} is not in the future: here it is {here}")
    if moment - now > LONGEST:
        raise ValueError(f"{text[:40]} is too far away; the furthest is in {LONGEST.days} days")
    return moment.astimezone(UTC)
