"""`EntrySignatures`: entries of the journal carry a signature, so that nobody without the keys writes history (R20, R22).

The signature is the last field of an entry's JSON, and signs all before it: an older release reads the entry as ever. HMAC-SHA256: RFC 2104.
"""

import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

from conventions.core.message_keys import MessageKeys

Use: TypeAlias = Literal["event", "deed"]
"""The field of the stream that holds an entry: how an attempt ended, or the action of a person. One never passes for the other."""

VERSION = b"conventions journal 1"
FIELD = b',"signature":"'
END = b'"}'


def _now() -> datetime:
    return datetime.now(UTC)


class KeyNotHere(Exception):
    """An entry was signed just now with a key that this process does not have: another process may have it. No `ValueError`: it is not the entry's fault."""


class EntrySignatures:
    """Signs and verifies the entries of one application.

    Args:
        keys: the keys of its messages.
        trusted_until: until then an entry without a signature is believed, since releases before this one do not sign; aware.
        patience: for how long an entry may wait for a process that has its key.
        now: the present moment.
    """

    def __init__(
        self,
        keys: MessageKeys,
        trusted_until: datetime | None = None,
        *,
        patience: timedelta = timedelta(0),
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._keys, self._trusted_until, self._patience, self._now = keys, trusted_until, patience, now

    def signed(self, entry: bytes, use: Use) -> bytes:
        """An entry with its signature; `entry`: JSON of a mapping with at least one field."""
        return b"%b%b%b.%b%b" % (
            entry[:-1], FIELD, self._keys.signs_with.encode(), self._keys.mac(_text(entry, use)).encode(), END,
        )  # fmt: skip

    def fault_of(self, entry: bytes, use: Use, appended: datetime) -> str:
        """Why an entry is not believed; empty: it is.

        Args:
            entry: with its signature.
            use: the field that holds it.
            appended: when it came into the journal.

        Raises:
            KeyNotHere: nobody can tell here, and it came not long ago.
        """
        before, field, rest = entry.rpartition(FIELD)
        if not field or not rest.endswith(END):
            return "" if self._is_early() else "it is not signed"
        name, _, code = rest[: -len(END)].partition(b".")
        known = name.decode(errors="replace")
        if known not in self._keys:
            if self._now() < appended + self._patience:
                raise KeyNotHere(f"an entry of the journal is signed with a key that is not here, perhaps {known!r}")
            return "it is signed with a key that is not here"
        right = self._keys.mac(_text(before + b"}", use), known)
        return "" if hmac.compare_digest(right.encode(), code) else "its signature does not fit it: it was altered"

    def _is_early(self) -> bool:
        return self._trusted_until is not None and self._now() < self._trusted_until


def _text(entry: bytes, use: Use) -> bytes:
    return b"%b %b %b" % (VERSION, use.encode(), entry)
