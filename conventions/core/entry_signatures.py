"""`EntrySignatures`: entries of the journal carry a signature, so that nobody without the keys writes history (R20, R22).

The signature is the last field of an entry's JSON, and signs all before it: an older release reads the entry as ever. HMAC-SHA256: RFC 2104.
"""

import hmac
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from conventions.core.message_keys import MessageKeys

Use: TypeAlias = Literal["event", "deed"]
"""The field of the stream that holds an entry: how an attempt ended, or the action of a person. One never passes for the other."""

VERSION = b"conventions journal 1"
FIELD = b',"signature":"'
END = b'"}'
LONGEST = 64  # bytes of the field, with a name of 16 characters and a code of 24
SIGNED = re.compile(rb',"signature":"([A-Za-z0-9_-]{1,16})\.[A-Za-z0-9+/]{24}"\}\Z')
NOT_SIGNED = "it is not signed"
KEY_NOT_HERE = "it is signed with a key that is not here"


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
        return b"%b%b%b.%b%b" % (
            entry[:-1], FIELD, self._keys.signs_with.encode(), self._keys.mac(_text(entry, use)).encode(), END,
        )  # fmt: skip

    def fault_of(self, entry: bytes, use: Use) -> str:
        """Why an entry is not believed; empty: it is."""
        before, field, rest = entry.rpartition(FIELD)
        if not field or not rest.endswith(END):
            return "" if self._is_early() else NOT_SIGNED
        name, _, code = rest[: -len(END)].partition(b".")
        known = name.decode(errors="replace")
        if known not in self._keys:
            return KEY_NOT_HERE
        right = self._keys.mac(_text(before + b"}", use), known)
        return "" if hmac.compare_digest(right.encode(), code) else "its signature does not fit it: it was altered"

    @staticmethod
    def is_signed(entry: bytes) -> bool:
        """Whether an entry has a signature, right or wrong."""
        return SIGNED.search(entry[-LONGEST:]) is not None

    @staticmethod
    def key_of(entry: bytes) -> str:
        """The name of the key that an entry says it is signed with; empty: none."""
        found = SIGNED.search(entry[-LONGEST:])
        return found[1].decode() if found else ""

    def _is_early(self) -> bool:
        return self._trusted_until is not None and self._now() < self._trusted_until


def _text(entry: bytes, use: Use) -> bytes:
    return b"%b %b %b" % (VERSION, use.encode(), entry)
