"""`MessageKeys`: the keys that messages are signed with (R20).

The first key signs, and each of them verifies. So a new key goes to all processes as the second one, then as the first one; the old one is
taken away when no message that it has signed waits any more.
"""

from binascii import b2a_base64
from collections.abc import Iterator
from datetime import datetime
from typing import Self

from conventions.core.mac import Mac
from conventions.core.named_keys import NAME, parse_keys

MAC = 18  # bytes that are kept of a digest of 32: at least half of it, see RFC 2104, section 5; 24 characters
REVOKED_FORM = "name@moment, separated by commas, each moment with a zone, such as 2026-12@2026-12-24T10:00+09:00"


class MessageKeys:
    """The keys of one application, by name.

    Args:
        keys: bytes by name; the first one signs.
    """

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._macs = {name: Mac(key) for name, key in keys.items()}
        self.signs_with = next(iter(keys))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read them as the setting has them. Raises: ValueError, which never repeats a key."""
        return cls(parse_keys(text))

    def __iter__(self) -> Iterator[str]:
        return iter(self._macs)

    def __contains__(self, name: object) -> bool:
        return name in self._macs

    def mac(self, data: bytes, name: str = "") -> str:
        """The code of data under a key, 24 characters; by default under that which signs. Raises: KeyError."""
        return b2a_base64(self._macs[name or self.signs_with].of(data)[:MAC], newline=False).decode()


def parse_revoked(text: str | None) -> dict[str, datetime]:
    """The revoked keys, and since when, aware: `name@moment`, separated by commas; `None`: no key. Raises: ValueError."""
    found: dict[str, datetime] = {}
    for part in () if text is None else text.split(","):
        name, at, since = part.strip().partition("@")
        if not at or not NAME.fullmatch(name) or name in found:
            raise ValueError(f"write {REVOKED_FORM}, each name once")
        try:
            found[name] = datetime.fromisoformat(since)
        except ValueError:
            raise ValueError(f"the moment of {name} cannot be read; write {REVOKED_FORM}") from None
        if found[name].tzinfo is None:
            raise ValueError(f"the moment of {name} has no zone; write {REVOKED_FORM}")
    return found
