"""`Head`: the end of a chain as one signed line, for a log: what the chain had then, it must still have later."""

import hmac
import re
from dataclasses import dataclass

from conventions.core.audit_keys import AuditKeys
from conventions.storage.tables import SegmentRow

PREFIX = "audit head "  # of a line of the log: a job may print what looks like a head
PATTERN = re.compile(
    r"(executions|actions):(\d{1,10}):(\d{1,19}):([0-9a-f]{64}):([A-Za-z0-9_-]{1,16}):([A-Za-z0-9+/]{24})"
)


@dataclass(frozen=True)
class Head:
    """The end of a chain at some moment.

    Attributes:
        chain: its name.
        segment: the number of its last segment.
        last: the number of its last row.
        hash: over all its rows.
        key: the name of the key that has signed this.
        code: the signature.
    """

    chain: str
    segment: int
    last: int
    hash: str
    key: str
    code: str

    @classmethod
    def sign(cls, end: SegmentRow, keys: AuditKeys) -> "Head":
        """The head of the chain that ends with this segment. Raises: KeyError: its key is not here."""
        code = keys.mac(_text(end.chain, end.number, end.last, end.hash), end.key)
        return cls(end.chain, end.number, end.last, end.hash, end.key, code)

    def is_genuine(self, keys: AuditKeys) -> bool:
        """Whether the key that it names has signed it. Raises: KeyError: that key is not here."""
        right = keys.mac(_text(self.chain, self.segment, self.last, self.hash), self.key)
        return hmac.compare_digest(right, self.code)

    def __str__(self) -> str:
        """One word: what `find` reads."""
        return f"{self.chain}:{self.segment}:{self.last}:{self.hash}:{self.key}:{self.code}"


def find(text: str) -> list[Head]:
    """The heads in a log."""
    found = (read(part) for part in text.split(PREFIX)[1:])
    return [head for head in found if head is not None]


def read(text: str) -> Head | None:
    """The head with which a text begins; `None`: there is none."""
    match = PATTERN.match(text)
    if match is None:
        return None
    chain, segment, last, hash_, key, code = match.groups()
    return Head(chain, int(segment), int(last), hash_, key, code)


def _text(chain: str, segment: int, last: int, hash_: str) -> bytes:
    return f"conventions audit head {chain} {segment} {last} {hash_}".encode()
