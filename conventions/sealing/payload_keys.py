"""`PayloadKeys`: the keys that seal what jobs hold (R21): AES-256-GCM.

The first key seals, and each of them opens: so a new key goes to all processes as the second one, then as the first one.

One key may seal 2^32 texts with random nonces (NIST SP 800-38D, section 8.3). A busy system sends more, so each process seals with a key of its own:
HKDF-SHA256 (RFC 5869) of the key and 16 random bytes, which stand before what it has sealed.
"""

from collections.abc import Iterator, Mapping
from os import urandom
from typing import TYPE_CHECKING

from conventions.core.error_text import without_values
from conventions.core.errors import CannotOpen
from conventions.core.mac import Mac
from conventions.core.named_keys import parse_keys
from conventions.sealing.aes_gcm import NONCE, NOT_SEALED, TAG, cipher, end_of_head, invalid_tag, key_of, new_head

if TYPE_CHECKING:  # an extra, which only those need who seal
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SAME = b"conventions same text 1\0"
MOST = 1 << 30  # texts that a process seals before it takes another key of its own
REMEMBERED = 1024  # keys of processes; each takes some 10 µs to make


class PayloadKeys:
    """The keys of one application, by name.

    Args:
        keys: bytes by name; the first one seals.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)
        self.seals_with = next(iter(keys))
        self._same = Mac(keys[self.seals_with])
        self._made: dict[bytes, AESGCM] = {}  # by the head of what they have sealed
        self._own: tuple[bytes, AESGCM] | None = None  # as one value: threads share it
        self._left = 0

    @classmethod
    def parse(cls, text: str) -> "PayloadKeys":
        """Read them as the setting has them. Raises: ValueError, which never repeats a key."""
        return cls(parse_keys(text))

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def seal(self, text: bytes, bound_to: bytes) -> bytes:
        """Seal a text. It opens only together with what it is bound to, which is not secret and is not kept here."""
        own = self._own
        if own is None or self._left <= 0:
            own = self._take_own()
        self._left -= 1
        head, key = own
        nonce = urandom(NONCE)
        return b"%b%b%b" % (head, nonce, key.encrypt(nonce, text, bound_to))

    def same(self, text: bytes) -> str:
        """A code of a text, the same each time: two sealed messages with one of them hold the same. Nobody guesses the text back without the key."""
        return self._same.of(SAME + text).hex()[:32]

    def open(self, sealed: bytes, bound_to: bytes) -> bytes:
        """The text. Raises: CannotOpen: its key is not here, it is no sealed text, it was altered, or it was bound to something else."""
        at = end_of_head(sealed)
        made = self._made.get(sealed[:at]) if len(sealed) >= at + NONCE + TAG else None
        if made is None:  # no text with this head was opened here yet, or it is no sealed text
            name = key_of(sealed)
            if name not in self._keys:
                raise cannot_open(f"it is sealed with the key {name!r}, which is not here" if name else NOT_SEALED)
            made = self._remember(sealed[:at], name)
        try:
            return made.decrypt(sealed[at : at + NONCE], sealed[at + NONCE :], bound_to)
        except invalid_tag():
            raise cannot_open(
                "its seal does not fit it: it was altered, or another key has the name of its key"
            ) from None

    def _take_own(self) -> "tuple[bytes, AESGCM]":
        head = new_head(self.seals_with)
        own = self._own = head, self._remember(head, self.seals_with)
        self._left = MOST
        return own

    def _remember(self, head: bytes, name: str) -> "AESGCM":
        if len(self._made) >= REMEMBERED:
            self._made.clear()
        made = self._made[head] = cipher(self._keys[name], head)
        return made


def cannot_open(why: str) -> CannotOpen:
    """The error, whose text repeats nothing of what is sealed."""
    return without_values(CannotOpen(why))
