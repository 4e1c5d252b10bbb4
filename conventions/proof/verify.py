"""Whether the chains are whole: walks all segments and rows, and names the first thing of each chain that does not fit."""

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

from sqlalchemy import Result, func, select
from sqlalchemy.orm import Session

from conventions.core.audit_keys import AuditKeys
from conventions.core.entry_signatures import EntrySignatures
from conventions.proof import actor_codes, waiting_rows
from conventions.proof.chain import code_of_segment, following
from conventions.proof.heads import Head
from conventions.proof.proven_tables import ACTIONS, FORM, TABLES, ProvenTable, Row
from conventions.proof.row_codes import RowCodes
from conventions.storage.database import Database
from conventions.storage.tables import SegmentRow

PAGE = 1000  # rows in memory at the same time
PURGE = "audit purge"  # the action that explains which rows are not there

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
    head: Head | None = None
    fault: Fault | None = None


def verify(
    database: Database, keys: AuditKeys, told: Sequence[Head] = (), believed: EntrySignatures | None = None
) -> list[ChainReport]:
    """Walk both chains as they are at one moment.

    Args:
        database: the records.
        keys: that have sealed them.
        told: heads of before, from a log or from Redis: the chains must still have what these say.
        believed: whose rows that wait are; `None`: everybody's.

    Raises:
        SQLAlchemyError: it does not answer.
    """
    engine = database.engine
    if not database.is_sqlite:
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    else:
        engine = engine.execution_options(conventions_read_only=True)
    with Session(engine) as session, session.begin():
        explained = _Explained(believed)
        reports = []
        for table in reversed(TABLES):  # the actions explain what is not there in both
            walk = _Walk(session, table, keys, [head for head in told if head.chain == table.name], explained)
            reports.append(walk.report())
        return reports[::-1]


@dataclass
class _Explained:
    """What actions say of rows that are gone."""

    believed: EntrySignatures | None  # whose actions that wait for their place are
    purged: dict[str, int] = field(default_factory=dict)  # the last segment of each chain whose rows were deleted

    def believes(self, row: Row) -> bool:
        """Whether an action that waits for its place was written by somebody with a key."""
        return self.believed is None or not self.believed.fault_of_row(ACTIONS.unsealed_text(row), row["code"])

    def note(self, row: Row) -> None:
        """Add what an action says."""
        if row["action"] == PURGE and isinstance(row["after"], dict):
            for chain, number in row["after"].items():
                if isinstance(number, int):
                    self.purged[chain] = max(number, self.purged.get(chain, 0))


class _Walk:
    def __init__(
        self, session: Session, table: ProvenTable, keys: AuditKeys, told: Sequence[Head], explained: _Explained
    ) -> None:
        self._session, self._table, self._keys, self._told = session, table, keys, told
        self._explained = explained
        self._found = ChainReport(table.name)
        self._codes: dict[str, str] = {}

    def report(self) -> ChainReport:
        try:
            self._walk()
        except Broken as broken:
            self._found.fault = broken.fault
        return self._found

    def _walk(self) -> None:
        row, found = SegmentRow, self._found
        segments = self._session.scalars(select(row).where(row.chain == self._table.name).order_by(row.number)).all()
        self._look_beside(segments)
        for head in self._told:
            self._check_told(head, segments)
        if not segments:
            return
        found.segments, found.last = len(segments) - 1, segments[-1].last
        self._check_links(segments)
        if self._table is ACTIONS:
            self._hear_actions(segments)
        purged = self._check_purged(segments)
        for segment in segments[1:]:
            if segment.number > purged:
                self._walk_rows(segment)
        self._look_for_strangers(segments)
        end = segments[-1]
        found.head = Head.sign(end, self._keys)

    def _break(self, what: What, text: str, row: str | None = None) -> Broken:
        return Broken(Fault(self._table.name, what, text, row))

    # Segments

    def _check_links(self, segments: Sequence[SegmentRow]) -> None:
        """Each segment is signed, and goes on where the one before ends."""
        if segments[0].number != 0:
            raise self._break(
                "removed", f"segment 0, the beginning of the chain, is missing; the first one is {segments[0].number}"
            )
        hash_, last = segments[0].hash, 0
        for number, segment in enumerate(segments):
            if segment.number != number:
                raise self._break("removed", f"segment {number} is missing")
            if segment.key not in self._keys:
                raise self._break(
                    "key missing",
                    f"segment {number} was sealed with the key {segment.key}, which is not in CONVENTIONS_AUDIT_KEYS",
                )
            if segment.form != FORM:
                raise self._break(
                    "key missing",
                    f"segment {number} has form {segment.form}: a later release has sealed it, so verify with that one",
                )
            if not hmac.compare_digest(code_of_segment(segment, self._keys), segment.code):
                raise self._break("edited", f"segment {number} is not as it was sealed")
            if number and (segment.previous != hash_ or segment.first != last + 1):
                raise self._break("edited", f"segment {number} does not go on where segment {number - 1} ends")
            hash_, last = segment.hash, segment.last

    def _check_purged(self, segments: Sequence[SegmentRow]) -> int:
        """The last segment whose rows were deleted, as the audit has it."""
        purged = min(self._explained.purged.get(self._table.name, 0), segments[-1].number)
        self._found.purged = purged
        return purged

    def _hear_actions(self, segments: Sequence[SegmentRow]) -> None:
        """What the actions say of purges and erasures. Only what its row's code proves counts."""
        table = self._table.rows
        query = select(table).where(table.c.action == PURGE)
        for row in _columns(self._session.execute(query)):
            if row["number"] is None:
                if self._explained.believes(row):
                    self._explained.note(row)
                continue
            segment = next((one for one in segments if one.first <= row["number"] <= one.last), None)
            if segment is not None and self._fits(row, segment.key):
                self._explained.note(row)

    def _check_told(self, head: Head, segments: Sequence[SegmentRow]) -> None:
        """A head of before: it is genuine, and the chain is as long at least. What it says of a row is compared when the row is reached."""
        if head.key not in self._keys:
            raise self._break(
                "key missing",
                f"the head {head} was signed with the key {head.key}, which is not in CONVENTIONS_AUDIT_KEYS",
            )
        if not head.is_genuine(self._keys):
            raise self._break("edited", f"the head {head} is not genuine: nobody with the key {head.key} has signed it")
        last = segments[-1].last if segments else 0
        if head.last > last:
            raise self._break(
                "cut",
                f"rows {last + 1} to {head.last} were cut off: the head that was told ends with row {head.last}, and the chain with row {last}; "
                "or the database was restored from a copy of before",
            )
        for segment in segments:
            ends_there = segment.last == head.last and segment.number == head.segment
            if ends_there and segment.hash != head.hash:
                raise self._break(
                    "edited",
                    f"the chain had another hash at row {head.last}, the end of segment {segment.number}: it was written anew",
                )

    # Rows

    def _walk_rows(self, segment: SegmentRow) -> None:
        expected, hash_ = segment.first, segment.previous
        told = {head.last: head for head in self._told}
        for row in self._rows(segment.first, segment.last):
            number, id_ = row["number"], row["id"]
            if number < expected:
                raise self._break("inserted", f"row {id_} was inserted: another row has number {number}, too", id_)
            if not self._fits(row, segment.key):
                raise self._misfit(row, segment, expected)
            if number > expected:
                raise self._break(
                    "removed",
                    f"{_rows(expected, number - 1)} of segment {segment.number} removed; the next one is {id_}",
                    id_,
                )
            hash_ = following(hash_, row["code"])
            if number in told and told[number].hash != hash_:
                raise self._break(
                    "edited",
                    f"the chain had another hash at row {number} when its head was told: it was written anew up to there",
                    id_,
                )
            expected += 1
            self._found.rows += 1
        if expected <= segment.last:
            raise self._break(
                "removed", f"{_rows(expected, segment.last)}, the end of segment {segment.number}, removed"
            )
        if hash_ != segment.hash:
            raise self._break("edited", f"the rows of segment {segment.number} are not those that it was sealed with")

    def _rows(self, first: int, last: int) -> Iterator[Row]:
        """Rows of these numbers in order, a page at a time."""
        table = self._table.rows
        number = table.c.number
        after: tuple[int, str] = (first - 1, "")
        while True:
            beyond = (number > after[0]) | ((number == after[0]) & (table.c.id > after[1]))
            query = select(table).where(number != 0, number >= first, number <= last, number >= after[0], beyond)
            page = _columns(self._session.execute(query.order_by(number, table.c.id).limit(PAGE)))
            self._learn({row["actor"] for row in page})
            yield from page
            if len(page) < PAGE:
                return
            after = (page[-1]["number"], page[-1]["id"])

    def _learn(self, actors: set[str]) -> None:
        """Read the codes of actors."""
        new = actors - self._codes.keys()
        if new:
            self._codes |= actor_codes.codes_of(self._session, new, create=False)

    def _fits(self, row: Row, key: str, number: int | None = None) -> bool:
        """Whether the code of a row is that of what it says, and of its number, or of another one."""
        if row["code"] is None:
            return False
        codes, place = RowCodes(self._table, self._keys, key), row["number"] if number is None else number
        if row["erased"] is not None:
            self._found.erased += 1
            return hmac.compare_digest(codes.erased_code(row, place).encode(), row["erased"].encode())
        self._learn({row["actor"]})
        actor_code = self._codes.get(row["actor"])
        return actor_code is not None and hmac.compare_digest(
            codes.code(row, place, actor_code).encode(), row["code"].encode()
        )

    def _misfit(self, row: Row, segment: SegmentRow, expected: int) -> Broken:
        """Why a row does not fit: it was moved, inserted, or edited."""
        id_, number = row["id"], row["number"]
        for one in range(segment.first, segment.last + 1):
            if one != number and self._fits(row, segment.key, one):
                return self._break(
                    "moved", f"row {id_} was moved: it has number {number}, and was sealed as number {one}", id_
                )
        if row["erased"] is None and row["actor"] not in self._codes:
            return self._break(
                "edited",
                f"row {id_}, number {number}, was edited: it was not sealed with the actor {row['actor']}, of whom there is no salt",
                id_,
            )
        others = self._session.execute(
            select(self._table.table.id).where(self._table.table.number != 0, self._table.table.number == number)
        ).all()
        what: What = "inserted" if len(others) > 1 or number != expected else "edited"
        return self._break(what, f"row {id_}, number {number}, was {what}: its code does not fit what it says", id_)

    # Beside the chain

    def _look_beside(self, segments: Sequence[SegmentRow]) -> None:
        """Rows that are in no chain: of before it, waiting, or not believed."""
        table, found, session = self._table.table, self._found, self._session
        at = getattr(table, self._table.at)
        found.waiting = session.scalar(select(func.count()).select_from(table).where(table.number.is_(None))) or 0
        found.waits_since = waiting_rows.waits_since(session, self._table)
        found.unproven = session.scalar(select(func.count()).select_from(table).where(table.number == 0)) or 0
        refused = session.scalar(select(table.id).where(table.number != 0, table.number < 0).order_by(at).limit(1))
        if refused is not None:
            raise self._break(
                "inserted",
                f"row {refused} was inserted: nobody with a key has signed it, so it was not sealed",
                refused,
            )
        if segments:
            end = segments[0].opened_at + waiting_rows.OTHER_RELEASE
            late = select(table.id).where(table.number == 0, at > end).order_by(at).limit(1)
            if (id_ := session.scalar(late)) is not None:
                raise self._break(
                    "inserted",
                    f"row {id_} was inserted: it says that it is older than the chain, and its time is later",
                    id_,
                )

    def _look_for_strangers(self, segments: Sequence[SegmentRow]) -> None:
        """Rows beyond the end."""
        table = self._table.table
        id_ = self._session.scalar(
            select(table.id).where(table.number != 0, table.number > segments[-1].last).order_by(table.number).limit(1)
        )
        if id_ is not None:
            raise self._break(
                "inserted",
                f"row {id_} was inserted: its number is beyond the end of the chain, or the end was cut off",
                id_,
            )


def _rows(first: int, last: int) -> str:
    return f"row {first} was" if first == last else f"rows {first} to {last} were"


def _columns(result: Result[Any]) -> list[Row]:
    return [dict(row) for row in result.mappings()]
