"""`Notice`: what a form has done, in words, which the page shows to which it leads."""

from collections.abc import Callable
from datetime import datetime
from typing import Literal, NamedTuple, Self, TypeAlias

from conventions.pauses.pause import Pause

Level: TypeAlias = Literal["success", "warning", "danger"]

LEVELS: tuple[Level, ...] = ("success", "warning", "danger")
COOKIE = "conventions_notice"  # signed, since only our own words are shown as ours
KEPT_FOR = 60  # seconds
LARGEST = 2000  # bytes: a browser keeps cookies of 4 KiB


def replaced_text(before: Pause | None, clock: Callable[[datetime], str]) -> str:
    """Whose pause another one has taken the place of, as a sentence more; empty where there was none.

    Args:
        before: that pause.
        clock: writes its end.
    """
    if before is None:
        return ""
    until = f" until {clock(before.until)}" if before.until else ""
    return f" This takes the place of a pause by {before.actor}{until}: {before.reason.rstrip('.')}."


class Notice(NamedTuple):
    """What a form has done, or why it has done nothing."""

    level: Level
    text: str

    def sealed(self, token: str) -> bytes:
        """As a cookie has it, for the page whose address has the token."""
        words = self.text.encode(errors="replace")
        if len(words) > LARGEST:
            words = words[:LARGEST].decode(errors="ignore").encode() + "…".encode()
        return f"{token} {self.level} ".encode() + words

    @classmethod
    def opened(cls, sealed: bytes, token: str) -> Self | None:
        """What was sealed; `None` if it is for another page."""
        of, _, rest = sealed.decode(errors="replace").partition(" ")
        name, _, text = rest.partition(" ")
        level = next((one for one in LEVELS if one == name), None)
        return None if level is None or of != token else cls(level, text)
