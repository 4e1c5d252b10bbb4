"""Lengths of time in words, for people."""

STEPS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float) -> str:
    """A duration in its two largest units: `45 s`, `1 h 20 min`."""
    rest = max(1, round(seconds))
    parts: list[tuple[int, str]] = []
    for size, unit in STEPS:
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count)
