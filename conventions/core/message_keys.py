"""`MessageKeys`: the keys that messages are signed with (R20).

The first key signs, and each of them verifies. So a new key goes to all processes as the second one, then as the first one; the old one is
taken away when no message that it has signed waits any more.
"""

import hmac
import re
from base64 import b64decode
from binascii import Error as NotBase64
from binascii import b2a_base64
from collections.abc import Iterator
from datetime import datetime
from secrets import token_bytes

LEAST = 32  # bytes of a key: as many as the digest has, see RFC 2104, section 3
MAC = 18  # bytes that are kept of a digest of 32: at least half of it, see RFC 2104, section 5; 24 characters
NAME = re.compile(r"[A-Za-z0-9_-]{1,16}")
FORM = "name:key, separated by commas, each key 32 random bytes or more in base64, such as `openssl rand -base64 32` prints"
REVOKED_FORM = "name@moment, separated by commas, each moment with a zone, such as 2026-12@2026-12-24T10:00+09:00"


class MessageKeys:
    """The keys of one application, by name.

    Args:
        keys: bytes by name; the first one signs.
    """

    def __init__(self, keys: dict[str, bytes]) -> None:
        # A copy of a hash that has read the key already takes less than a new one.
        self._begun = {name: hmac.new(key, digestmod="sha256") for name, key in keys.items()}
        self.signs_with = next(iter(keys))

    @classmethod
    def parse(cls, text: str) -> "MessageKeys":
        """Read them as the setting has them. Raises: ValueError, which never repeats a key."""
        found: dict[str, bytes] = {}
        for number, part in enumerate(text.split(","), 1):
            name, colon, key = part.strip().partition(":")
            if not colon or not NAME.fullmatch(name):
                raise ValueError(f"the {number}. key has no name of up to 16 letters, digits, - and _; write {FORM}")
            if name in found:
                raise ValueError(f"two keys are named {name}; write {FORM}")
            try:
                found[name] = b64decode(key.translate(_URL_SAFE), validate=True)
            except (NotBase64, ValueError):
                raise ValueError(f"the key {name} is no base64; write {FORM}") from None
            if len(found[name]) < LEAST:
                raise ValueError(f"the key {name} has {len(found[name])} bytes, and not {LEAST} or more; write {FORM}")
            if len(set(found[name])) < LEAST // 4:
                raise ValueError(f"the key {name} is not random; write {FORM}")
        return cls(found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._begun)

    def __contains__(self, name: object) -> bool:
        return name in self._begun

    def mac(self, data: bytes, name: str = "") -> str:
        """The code of data under a key, 24 characters; by default under that which signs. Raises: KeyError."""
        begun = self._begun[name or self.signs_with].copy()
        begun.update(data)
        return b2a_base64(begun.digest()[:MAC], newline=False).decode()


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


_URL_SAFE = str.maketrans("-_", "+/")


def new_key(name: str) -> str:
    """A new key, as the setting has it."""
    return f"{name}:{b2a_base64(token_bytes(LEAST), newline=False).decode()}"
