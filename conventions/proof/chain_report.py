"""`ChainReport`: what a walk along a chain has found; `Fault`: the first thing that does not fit."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from conventions.proof.signed_heads import Head

What: TypeAlias = Literal["edited", "inserted", "removed", "moved", "cut", "key missing"]


@dataclass(frozen=True)
class Fault:
    """The first thing that does not fit in a chain.

    Attributes:
        chain: its name.
        what: what was done to it.
        text: which row or segment, and how that is seen.
        row: the id of the row, where there is one.
    """

    chain: str
    what: What
    text: str
    row: str | None = None


class Broken(Exception):
    """A chain does not fit; it has the fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


@dataclass
class ChainReport:
    """What was seen of a chain.

    Attributes:
        chain: its name.
        rows: how many rows fit.
        segments: how many there are.
        purged: the number of the last segment whose rows were deleted, as the audit says; 0: none.
        last: the number of the last row.
        unproven: rows of before the chain began.
        waiting: rows that wait for their place.
        waits_since: of when the oldest of them is.
        erased: rows in which an actor was erased.
        heads: of before that were compared.
        uncompared: those whose rows were deleted by right since, so that nobody can tell.
        others: heads of before that nobody with one of the keys has signed; they say nothing.
        accepted: heads of before that the chain does not have, as somebody has said in an action.
        missed: those that it does not have otherwise.
        head: the end, signed.
        fault: the first thing that does not fit.
    """

    chain: str
    rows: int = 0
    segments: int = 0
    purged: int = 0
    last: int = 0
    unproven: int = 0
    waiting: int = 0
    waits_since: datetime | None = None
    erased: int = 0
    heads: int = 0
    uncompared: int = 0
    others: int = 0
    accepted: int = 0
    missed: list[Head] = field(default_factory=list)
    head: Head | None = None
    fault: Fault | None = None


def rows_text(first: int, last: int) -> str:
    """Which rows, for a sentence that goes on with what was done to them."""
    return f"row {first} was" if first == last else f"rows {first} to {last} were"
