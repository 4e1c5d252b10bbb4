"""`AuditEntry`: one action of a person, for the audit. It waits in the journal until it is in SQL (R22)."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self
from uuid import uuid4

from conventions.core.entry_signatures import EntrySignatures

CANCEL, BATCH_CANCEL = (
    "cancel",
    "batch cancel",
)  # cancel by message id, which may be a batch's; cancel of a batch
MOMENT = "told_at"  # in `after` of an entry that is counted: when it was told; one that arrives much later is a copy
CANCEL_BY_FORCE = "cancel by force"  # its process was killed, or was to be


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One action of a person or a program.

    Attributes:
        actor: who.
        action: what, as the command line names it: `dead-letters edit`.
        target: an id, a group, the name of a schedule, or the id of a redrive run.
        reason: why.
        before: the changed values, before.
        after: the changed values, after.
        id: unique, so that an entry is recorded once, even if it is read twice.
    """

    actor: str
    action: str
    target: str
    reason: str | None = None
    before: Any = None
    after: Any = None
    id: str = field(default_factory=lambda: str(uuid4()))

    def encode(self, signatures: EntrySignatures | None) -> bytes:
        """The entry as the journal keeps it: JSON, signed where there are keys, see `Store.entry_signatures`."""
        found = json.dumps(asdict(self)).encode()  # half characters, which a terminal may send, become escapes
        return found if signatures is None else signatures.signed(found, "deed")

    @classmethod
    def decode(cls, data: bytes | str) -> Self:
        """Read what `encode` wrote. Unknown fields are ignored. Raises: ValueError when it is not an entry."""
        try:
            found = json.loads(data)
            entry = cls(**{one.name: found[one.name] for one in fields(cls) if one.name in found})
        except (TypeError, RecursionError) as error:
            raise ValueError(f"not an entry: {error}") from error
        texts = (entry.actor, entry.action, entry.target, entry.id, "" if entry.reason is None else entry.reason)
        if (
            not all(isinstance(one, str) for one in texts) or len(entry.id) > 36 or len(entry.action) > 64
        ):  # the columns
            raise ValueError("not an entry: a field has the wrong type or size")
        return entry
