"""A message's part in its batch. It stands in the id and in a plain header, so an undecodable message counts, too."""

import json
from datetime import timedelta
from typing import Any, Literal, NamedTuple, Self, TypeAlias, cast, get_args
from uuid import UUID, uuid5

from conventions.core.time_units import milliseconds
from conventions.core.value_bounds import fault_of_name

Role: TypeAlias = Literal["splitter", "chunk", "finish", "recovered"]
Outcome: TypeAlias = Literal["done", "dead", "cancelled"]

ROLES = get_args(Role)

_NAMESPACE = UUID("6d1f5c0e-8a55-4c1e-9a0e-6f1b3d6f7a41")


class Member(NamedTuple):
    """One message of a batch.

    Attributes:
        batch_id: the batch.
        role: what the message does.
        number: for a chunk its index; for `recovered` the number of repaired chunks.
        items: for a chunk the number of its items.
    """

    batch_id: str
    role: Role
    number: int = 0
    items: int = 0

    @classmethod
    def read(cls, header: Any) -> Self | None:
        """Read the header of a message. `None` when the message belongs to no batch, or the header makes no sense."""
        match header:
            case [str() as batch_id, str() as role, number, items] if (
                role in ROLES and _count(number) and _count(items) and fault_of_name(batch_id) is None
            ):
                return cls(batch_id, cast(Role, role), number, items)
            case _:
                return None


class Join(NamedTuple):
    """How a member ended. Settling the member passes this to its batch.

    Attributes:
        member: the message.
        outcome: how its batch counts it.
        keep: how long the batch is remembered after this.
    """

    member: Member
    outcome: Outcome
    keep: timedelta

    def encode(self) -> str:
        """The JSON that the script expects."""
        return json.dumps([*self.member, self.outcome, milliseconds(self.keep)])


def _count(value: Any) -> bool:
    """Whether this is a whole number that Lua can hold exactly."""
    return type(value) is int and 0 <= value < 2**53


def chunk_id(batch_id: str, index: int) -> str:
    """The message id of a chunk. Each run of the splitter gives the same id."""
    return str(uuid5(_NAMESPACE, f"{batch_id}/{index}"))


def finish_id(batch_id: str) -> str:
    """The message id of a batch's `finish`."""
    return str(uuid5(_NAMESPACE, f"{batch_id}/finish"))


def recovered_id(batch_id: str, repairs: int) -> str:
    """The id of the `recovered` message that reports this number of repaired chunks."""
    return str(uuid5(_NAMESPACE, f"{batch_id}/recovered/{repairs}"))
