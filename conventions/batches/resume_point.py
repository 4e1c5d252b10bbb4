"""`Cursor`: how far the items of a batch are cut, so that its splitter resumes exactly there."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Cut:
    """A point up to which the items are cut.

    Attributes:
        chunks: the number of chunks.
        items: the number of items.
        digest: over all chunks, in order.
        after: the last item, as JSON.
    """

    chunks: int = 0
    items: int = 0
    digest: str = ""
    after: Any = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a splitter resumes. Chunks up to `sent` are in the broker; chunks up to `intended` may be."""

    sent: Cut = Cut()
    intended: Cut = Cut()

    @classmethod
    def read(cls, text: str | bytes) -> Self:
        """Read JSON."""
        found = json.loads(text)
        return cls(Cut(**found["sent"]), Cut(**found["intended"]))

    def encode(self) -> str:
        """Write JSON."""
        return json.dumps(asdict(self))
