"""`Member`: which part of a batch a message is, in a clear header, so that also what cannot be decoded joins its batch."""

import json
from datetime import timedelta
from typing import Any, Literal, NamedTuple, Self, cast

type Role = Literal["splitter", "chunk", "finish", "recovered"]
type Outcome = Literal["done", "dead", "cancelled"]

ROLES = ("splitter", "chunk", "finish", "recovered")


class Member(NamedTuple):
    """One message of a batch.

    Attributes:
        batch_id: the batch.
        role: what the message does.
        number: of a chunk: its index; of `recovered`: how many chunks were repaired.
        items: of a chunk: how many it has.
    """

    batch_id: str
    role: Role
    number: int = 0
    items: int = 0

    @classmethod
    def read(cls, header: Any) -> Self | None:
        """What the header of a message says; `None` for one that is of no batch, or says nothing that can be meant."""
        match header:
            case [str() as batch_id, str() as role, number, items] if (
                role in ROLES and _count(number) and _count(items)
            ):
                return cls(batch_id, cast(Role, role), number, items)
            case _:
                return None


class Join(NamedTuple):
    """How a member ended, for the step that settles it.

    Attributes:
        member: which.
        outcome: how its batch counts it.
        keep: how long the batch is remembered after this.
    """

    member: Member
    outcome: Outcome
    keep: timedelta

    def encode(self) -> str:
        """As the script takes it."""
        return json.dumps([*self.member, self.outcome, round(self.keep.total_seconds() * 1000)])


def _count(value: Any) -> bool:
    """Whether it is a number that Lua holds exactly."""
    return type(value) is int and 0 <= value < 2**53
