"""`EntrySignatures`: entries of the journal carry a signature, so that nobody without the keys writes history (R20, R22).

The signature is the last field of an entry's JSON, and signs all before it: an older release reads the entry as ever. HMAC-SHA256: RFC 2104.
"""

import hmac
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, TypeAlias, get_args

from conventions.core.message_keys import MessageKeys

Use: TypeAlias = Literal["event", "deed", "row"]
"""What is signed: the field of the stream that holds an entry, how an attempt ended or the action of a person; or a row that waits to be sealed. One never passes for another."""

VERSION = b"conventions journal 1"
CODE = re.compile(r"([A-Za-z0-9_-]{1,16})\.([A-Za-z0-9+/]{24})")
LONGEST = 64  # bytes of the field, with a name of 16 characters and a code of 24
SIGNED = re.compile(rb',"signature":"([A-Za-z0-9_-]{1,16})\.([A-Za-z0-9+/]{24})"\}\Z')
NOT_SIGNED = "it is not signed"
KEY_NOT_HERE = "it is signed with a key that is not here"
ALTERED = "its signature does not fit it: it was altered"
_BEGINNINGS = {use: b"%b %b " % (VERSION, use.encode()) for use in get_args(Use)}


def _now() -> datetime:
    return datetime.now(UTC)


class EntrySignatures:
    """Signs and verifies the entries of one application.

    Args:
        keys: the keys of its messages.
        trusted_until: until then an entry without a signature is believed, since releases before this one do not sign; aware.
        now: the present moment.
    """

    def __init__(
        self,
        keys: MessageKeys,
        trusted_until: datetime | None = None,
        *,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._keys, self._trusted_until, self._now = keys, trusted_until, now

    def signed(self, entry: bytes, use: Use) -> bytes:
        """An entry with its signature; `entry`: JSON of a mapping with at least one field."""
        code = self._keys.mac(_text(entry, use))
        return b'%b,"signature":"%b.%b"}' % (entry[:-1], self._keys.signs_with.encode(), code.encode())

    def fault_of(self, entry: bytes, use: Use) -> str:
        """Why an entry is not believed; empty: it is."""
        found = _field_of(entry)
        if found is None:
            return "" if self._is_early() else NOT_SIGNED
        name = found[1].decode()
        if name not in self._keys:
            return KEY_NOT_HERE
        right = self._keys.mac(_text(entry[: -len(found[0])] + b"}", use), name)
        return "" if hmac.compare_digest(right.encode(), found[2]) else ALTERED

    def code_of_row(self, text: bytes) -> str:
        """The signature of a row, in a field beside it."""
        return f"{self._keys.signs_with}.{self._keys.mac(_text(text, 'row'))}"

    def fault_of_row(self, text: bytes, code: str | None) -> str:
        """Why a row is not believed; empty: it is."""
        if code is None:
            return "" if self._is_early() else NOT_SIGNED
        found = CODE.fullmatch(code)
        if found is None:
            return NOT_SIGNED
        name = found[1]
        if name not in self._keys:
            return KEY_NOT_HERE
        right = self._keys.mac(_text(text, "row"), name)
        return "" if hmac.compare_digest(right, found[2]) else ALTERED

    @staticmethod
    def is_signed(entry: bytes) -> bool:
        """Whether an entry has a signature, right or wrong."""
        return _field_of(entry) is not None

    @staticmethod
    def key_of(entry: bytes) -> str:
        """The name of the key that an entry says it is signed with; empty: none."""
        found = _field_of(entry)
        return found[1].decode() if found else ""

    def _is_early(self) -> bool:
        return self._trusted_until is not None and self._now() < self._trusted_until


def _field_of(entry: bytes) -> re.Match[bytes] | None:
    """The field of the signature, the name of the key, and the code."""
    return SIGNED.search(entry[-LONGEST:])


def _text(entry: bytes, use: Use) -> bytes:
    return _BEGINNINGS[use] + entry
