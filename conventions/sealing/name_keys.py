"""`NameKeys`: the keys under which sealed jobs have their names (R21).

An idempotency key is a hash of arguments, and so is a fingerprint: whoever has one guesses an order number back. So of a sealed task both are
HMAC-SHA256 (RFC 2104) under a key of its own, which changes seldom, since two names are not seen to be one.

While it changes there are two keys: each message carries both names, and `same_claim.lua` sees to it that both mean one claim. `plain` in the place
of a key stands for names as tasks that are not sealed have them.
"""

from collections.abc import Mapping
from typing import NamedTuple

from conventions.core.mac import Mac
from conventions.core.named_keys import parse_name_keys

LONG = 16  # bytes of a name; it is as long as a plain one


class Names(NamedTuple):
    """What a message says of which job it is.

    Attributes:
        key: its idempotency key.
        fingerprint: of its arguments.
    """

    key: str
    fingerprint: str


class NameKeys:
    """The keys of one application.

    Args:
        keys: bytes by name, two at most; the first one names. `None` stands for plain names.
    """

    def __init__(self, keys: Mapping[str, bytes | None]) -> None:
        self._macs = tuple(None if key is None else Mac(key) for key in keys.values())

    @classmethod
    def parse(cls, text: str) -> "NameKeys":
        """Read them as the setting has them. Raises: ValueError, which never repeats a key."""
        return cls(parse_name_keys(text))

    def of(self, plain: Names) -> list[Names]:
        """The names of a job, the first one to be used; `plain`: as tasks that are not sealed have them."""
        return [
            plain if mac is None else Names(_named(mac, b"key", plain.key), _named(mac, b"fp", plain.fingerprint))
            for mac in self._macs
        ]

    def codes(self, name: str, value: str) -> list[str]:
        """Codes of the value of an argument, by which a job is found, that of the key which names first; `value`: as JSON."""
        return [_named(mac, b"search", f"{name}\0{value}") for mac in self._macs if mac is not None]


def _named(mac: Mac, what: bytes, text: str) -> str:
    return mac.of(b"conventions name 1 %b\0%b" % (what, text.encode(errors="surrogatepass")))[:LONG].hex()
