"""`AuditEntry`: something that somebody did, as the audit keeps it; in the journal until it is in SQL (R22)."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self
from uuid import uuid4

CANCEL, BATCH_CANCEL = (
    "cancel",
    "batch cancel",
)  # the actions of those who cancel a message, which may be a batch, and a batch


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that somebody did.

    Attributes:
        actor: who.
        action: what, as the command line names it: `dead-letters edit`.
        target: to which: an id, a group, a name, or that of a redrive.
        reason: why.
        before: what was there, as far as it was changed.
        after: what is there now.
        id: its own, so that it is recorded once, however often it is read.
    """

    actor: str
    action: str
    target: str
    reason: str | None = None
    before: Any = None
    after: Any = None
    id: str = field(default_factory=lambda: str(uuid4()))

    def encode(self) -> str:
        """The deed as JSON."""
        return json.dumps(asdict(self))  # half characters, as a terminal may bring them, are escapes

    @classmethod
    def decode(cls, data: bytes | str) -> Self:
        """Read what `encode` wrote; fields that are not known are ignored. Raises: ValueError when it is no deed."""
        try:
            found = json.loads(data)
            deed = cls(**{one.name: found[one.name] for one in fields(cls) if one.name in found})
        except (TypeError, RecursionError) as error:
            raise ValueError(f"not a deed: {error}") from error
        texts = (deed.actor, deed.action, deed.target, deed.id, "" if deed.reason is None else deed.reason)
        if not all(isinstance(one, str) for one in texts) or len(deed.id) > 36 or len(deed.action) > 64:  # the columns
            raise ValueError("not a deed: a field has the wrong type or size")
        return deed
