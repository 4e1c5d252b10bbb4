"""`Notice`: what a form has done, in words, which the page shows to which it leads."""

from typing import Literal, NamedTuple, Self, TypeAlias

Level: TypeAlias = Literal["success", "warning", "danger"]

LEVELS: tuple[Level, ...] = ("success", "warning", "danger")
COOKIE = "conventions_notice"  # signed, since only our own words are shown as ours
KEPT_FOR = 60  # seconds
LARGEST = 2000  # bytes: a browser keeps cookies of 4 KiB


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
