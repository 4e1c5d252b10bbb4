"""`Cursor`: how far the items of a batch are cut, so that its splitter goes on exactly there."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Cut:
    """How far the items are cut.

    Attributes:
        chunks: how many.
        items: how many.
        digest: of all their chunks, in order.
        after: the last item, as JSON.
    """

    chunks: int = 0
    items: int = 0
    digest: str = ""
    after: Any = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a splitter goes on: chunks up to `sent` are in the broker, those up to `intended` may be."""

    sent: Cut = Cut()
    intended: Cut = Cut()

    @classmethod
    def read(cls, text: bytes) -> Self:
        """From JSON."""
        found = json.loads(text)
        return cls(Cut(**found["sent"]), Cut(**found["intended"]))

    def encode(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))
