"""What tests of batches share: ending a message of a batch as its job does, in the step that settles it."""

from typing import Any

from conventions.batches.batch_state import Batches, Origin
from conventions.broker.batch_membership import Join, Member, Outcome, Role
from conventions.idempotency.claims import ClaimRequest, Claims, Settlement
from conventions.storage.redis_store import Store

ORIGIN = Origin("Import", {"path": "x"}, "u-7")


class Ending:
    """Ends messages of one batch."""

    def __init__(self, store: Store, batches: Batches, batch_id: str) -> None:
        self._claims = Claims(store, lease=30)
        self._batches, self._id = batches, batch_id

    def chunk(self, index: int, outcome: Outcome, items: int, returned: Any = None) -> None:
        """A chunk has ended."""
        self.end(Member(self._id, "chunk", index, items), outcome, returned)

    def role(self, role: Role, outcome: Outcome, number: int = 0) -> None:
        """Another message of the batch has ended."""
        self.end(Member(self._id, role, number), outcome)

    def end(self, member: Member, outcome: Outcome, returned: Any = None) -> None:
        """Settle a message without a claim."""
        state: Any = "released" if outcome == "cancelled" else outcome
        request = ClaimRequest("", "", "token", f"{member.role}-{member.number}", "")
        join = Join(member, outcome, self._batches.keep)
        self._claims.settle([Settlement(request, state, None, result=returned, claimed=False, join=join)])
