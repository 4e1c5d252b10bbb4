"""The tables whose rows are chained, and what of a row its code covers."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, TypeAlias, cast

from sqlalchemy import Table

from conventions.storage.tables import AuditRow, ExecutionRow

FORM = 1
"""Of the texts below. A segment says which one its rows have. A release that adds a column to a table has the next number, and says below that the
column is `later`: rows of segments of before are verified without it. A recorder of a release that does not know a form lets its rows wait."""

Row: TypeAlias = Mapping[str, Any]
"""The columns of a row, by name."""

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


@dataclass(frozen=True)
class ProvenTable:
    """A table whose rows are chained.

    Attributes:
        name: of its chain.
        table: the rows.
        at: the column of the moment that a row tells of.
        columns: those that a code covers, beside `actor`.
        moments: those of them that are moments.
        numbers: those that are floating point numbers.
        values: those that are JSON.
        free: those in which a person may be named.
        later: columns that were added, by the first form that covers them.
    """

    name: str
    table: type[ExecutionRow] | type[AuditRow]
    at: str
    columns: tuple[str, ...]
    moments: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    later: Mapping[str, int] = field(default_factory=dict)

    def text(self, row: Row, number: int, actor: str, form: int) -> bytes:
        """What the code of a row covers: `ascii()` of a list, since that is the same in each release of Python, and fast.

        Args:
            row: its columns; one that is not there counts as empty.
            number: its place in the chain.
            actor: the actor, or what stands for it, see `actor_codes.py`.
            form: which columns it covers.
        """
        columns, changes = self._of_form[form] if form in self._of_form else self._learn(form)
        found: list[Any] = list(map(row.get, columns))
        for places, change in changes:
            for place in places:
                if found[place] is not None:
                    found[place] = change(found[place])
        return ascii([self.name, number, actor, found]).encode("ascii")

    def unsealed_text(self, row: Row, form: int = FORM) -> bytes:
        """What the signature of a row covers before it is in the chain."""
        return self.text(row, 0, row["actor"], form)

    @property
    def rows(self) -> Table:
        """The table, for who needs no objects of its rows."""
        return cast("Table", self.table.__table__)

    @cached_property
    def _of_form(self) -> dict[int, "_Covered"]:
        return {}

    def _learn(self, form: int) -> "_Covered":
        """The columns of a form, and where values stand that SQL may give back as others, and what makes them equal: 5.0 for 5, another time zone."""
        columns = [name for name in self.columns if self.later.get(name, 0) <= form]
        kinds = ((self.moments, _microseconds), (self.numbers, _float), (self.values, _json))
        changes = [([columns.index(name) for name in names if name in columns], change) for names, change in kinds]
        found = self._of_form[form] = columns, [one for one in changes if one[0]]
        return found


_Covered: TypeAlias = tuple[list[str], list[tuple[list[int], Callable[[Any], Any]]]]


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _float(value: float) -> float:
    try:
        return float(value) + 0.0  # SQLite has no -0.0
    except OverflowError:  # a whole number that is larger
        return value


def _json(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = _float(value)  # a bare number, which SQLite gives back as 0 where it was 0.0
    return json.dumps(value, sort_keys=True)


EXECUTIONS = ProvenTable(
    "executions",
    ExecutionRow,
    "ended_at",
    (
        "id", "message_id", "generation", "attempt", "kind", "task", "queue", "key", "worker", "enqueued_at", "started_at", "ended_at", "runtime",
        "wait", "release", "fingerprint", "error", "error_message", "traceback", "fence",
    ),
    moments=("enqueued_at", "started_at", "ended_at"),
    numbers=("runtime", "wait"),
    free=("key", "error_message", "traceback"),
)  # fmt: skip
ACTIONS = ProvenTable(
    "actions",
    AuditRow,
    "at",
    ("id", "at", "action", "target", "reason", "before", "after"),
    moments=("at",),
    values=("before", "after"),
    free=("target", "reason", "before", "after"),
)
TABLES = (EXECUTIONS, ACTIONS)  # the order in which their chains are locked
