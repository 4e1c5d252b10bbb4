"""Lengths of time as scripts and Redis take them."""

from datetime import timedelta


def milliseconds(length: float | timedelta) -> int:
    """A length of time, in seconds or as a `timedelta`, in whole milliseconds."""
    return round((length.total_seconds() if isinstance(length, timedelta) else length) * 1000)
