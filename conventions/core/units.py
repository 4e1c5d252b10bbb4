"""Times and lengths of time, as scripts, Redis and headers have them."""

from datetime import UTC, datetime, timedelta


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
    try:
        moment = datetime.fromisoformat(str(text)) if text else None
        return moment.astimezone(UTC) if moment is not None and moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
