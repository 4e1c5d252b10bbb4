"""Whether the chains are whole: walks all segments and rows, and names the first thing of each chain that does not fit."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from conventions.core.audit_keys import AuditKeys
from conventions.core.entry_signatures import EntrySignatures
from conventions.core.errors import ConfigurationError
from conventions.proof import actor_codes, waiting_rows
from conventions.proof.chain import following, is_genuine, read_exactly
from conventions.proof.chain_report import Broken, ChainReport, Fault, What, rows_text
from conventions.proof.compare_heads import HeadsOfBefore
from conventions.proof.deleted_segments import Marks, last_purged, marks
from conventions.proof.lost_heads import accepted_heads, lost_heads
from conventions.proof.proven_tables import ACTIONS, FORM, TABLES, ProvenTable, Row
from conventions.proof.row_codes import RowCodes
from conventions.proof.sealed_actions import Fits, row_fits
from conventions.proof.signed_heads import Head
from conventions.proof.unreadable_rows import ODD, is_unreadable, readable
from conventions.storage.database import Database
from conventions.storage.tables import SegmentRow

PAGE = 1000  # rows in memory at the same time


def verify(
    database: Database,
    keys: AuditKeys,
    told: Sequence[Head] = (),
    believed: EntrySignatures | None = None,
    *,
    accepted: Collection[Head] = (),
) -> list[ChainReport]:
    """Walk both chains as they are at one moment.

    Args:
        database: the records.
        keys: that have sealed them.
        told: heads of before, from a log or from Redis: the chains must still have what these say.
        believed: whose rows that wait are; `None`: everybody's.
        accepted: heads that the chains may lack, beside those that actions name.

    Raises:
        SQLAlchemyError: it does not answer.
    """
    engine = database.engine
    if not database.is_sqlite:
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    else:
        engine = engine.execution_options(conventions_read_only=True)
    with Session(engine) as session, session.begin():
        read_exactly(session)
        explained = _Explained(asked=frozenset(map(str, accepted)))
        reports = []
        for table in reversed(TABLES):  # the actions explain what is not there in both
            walk = _Walk(session, table, keys, believed, explained)
            reports.append(walk.report([head for head in told if head.chain == table.name]))
        return reports[::-1]


@dataclass
class _Explained:
    """What actions say of what is not there. The walk of the actions fills it. `asked`: heads that the caller accepts."""

    asked: frozenset[str] = frozenset()
    purged: Marks = field(default_factory=dict)
    heads: frozenset[str] = frozenset()
    lost: list[Head] = field(default_factory=list)

    def hear(self, session: Session, keys: AuditKeys, segments: Sequence[SegmentRow], fits: Fits) -> None:
        """Read the actions that explain; only those count that fit their chain."""
        place = session, keys, segments
        self.purged = marks(*place, fits)
        self.heads = self.asked | accepted_heads(*place, fits)
        self.lost = lost_heads(*place, fits)


class _Walk:
    def __init__(
        self,
        session: Session,
        table: ProvenTable,
        keys: AuditKeys,
        believed: EntrySignatures | None,
        explained: _Explained,
    ) -> None:
        self._session, self._table, self._keys, self._believed = session, table, keys, believed
        self._explained = explained
        self._found = ChainReport(table.name)
        self._heads = HeadsOfBefore(self._found, keys)
        self._codes: dict[str, str] = {}

    def report(self, told: Sequence[Head]) -> ChainReport:
        try:
            self._walk(told)
        except Broken as broken:
            self._found.fault = broken.fault
        except Exception as error:
            if isinstance(error, (OperationalError, InterfaceError)) and not is_unreadable(error):
                raise
            text = f"a segment or a row cannot be read ({type(error).__name__}): somebody has written it so"
            self._found.fault = Fault(self._table.name, "edited", text)
        return self._found

    def _walk(self, told: Sequence[Head]) -> None:
        row, found = SegmentRow, self._found
        segments = self._session.scalars(select(row).where(row.chain == self._table.name).order_by(row.number)).all()
        self._count_others()
        self._heads.hear(told)
        if segments:
            found.segments, found.last = len(segments) - 1, segments[-1].last
            self._check_links(segments)
            if self._table is ACTIONS:
                self._explained.hear(self._session, self._keys, segments, self._fits)
            self._heads.hear([head for head in self._explained.lost if head.chain == self._table.name])
            said = self._explained.purged.get(self._table.name, set())
            found.purged = max(min(last_purged(said, segments), segments[-1].number - 1), 0)
        self._heads.accept(self._explained.heads)
        for segment in segments[1:]:
            self._walk_rows(segment, are_left=segment.number <= found.purged)
        self._heads.finish(segments)
        self._look_for_strangers(segments)
        if segments:
            found.head = Head.sign(segments[-1], self._keys)

    def _break(self, what: What, text: str, row: Any = None) -> Broken:
        return Broken(Fault(self._table.name, what, text, None if row is None else str(row)))

    # Segments

    def _check_links(self, segments: Sequence[SegmentRow]) -> None:
        """Each segment is signed, and goes on where the one before ends."""
        hash_, last = segments[0].hash, 0
        for number, segment in enumerate(segments):
            if segment.number != number:
                raise self._break("removed", f"segment {number} is missing")
            if segment.key not in self._keys:
                raise self._break(
                    "key missing",
                    f"segment {number} was sealed with the key {segment.key}, which is not in CONVENTIONS_AUDIT_KEYS",
                )
            if segment.form > FORM:
                raise self._break(
                    "key missing",
                    f"segment {number} has form {segment.form}: a later release has sealed it, so verify with that one",
                )
            if not is_genuine(segment, self._keys):
                raise self._break("edited", f"segment {number} is not as it was sealed")
            if number and (segment.previous != hash_ or segment.first != last + 1):
                raise self._break("edited", f"segment {number} does not go on where segment {number - 1} ends")
            hash_, last = segment.hash, segment.last

    # Rows

    def _walk_rows(self, segment: SegmentRow, *, are_left: bool) -> None:
        """Each row of a segment. Of one that was purged, those that are left: a purge may have been stopped."""
        expected, hash_ = segment.first, segment.previous
        for row in self._rows(segment.first, segment.last):
            number, id_ = row["number"], row["id"]
            if number < expected:
                raise self._break("inserted", f"row {id_} was inserted: another row has number {number}, too", id_)
            if not self._fits(row, segment):
                raise self._misfit(row, segment, expected)
            self._found.erased += row["erased"] is not None
            if number > expected and not are_left:
                raise self._break(
                    "removed",
                    f"{rows_text(expected, number - 1)} removed from segment {segment.number}; the next one is {id_}",
                    id_,
                )
            hash_ = following(hash_, row["code"])
            if not are_left:
                self._heads.compare(number, hash_)
            expected = number + 1
            self._found.rows += 1
        if are_left:
            self._heads.compare(segment.last, segment.hash)
            return
        if expected <= segment.last:
            raise self._break(
                "removed", f"{rows_text(expected, segment.last)} removed from the end of segment {segment.number}"
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
            query = select(table.c.id, number).where(
                number != 0, number >= first, number <= last, number >= after[0], beyond
            )
            names = self._session.execute(query.order_by(number, table.c.id).limit(PAGE)).all()
            yield from self._read([name[0] for name in names])
            if len(names) < PAGE:
                return
            after = (names[-1][1], names[-1][0])

    def _read(self, ids: Sequence[str]) -> Sequence[Row]:
        """These rows in order. One that cannot be read, since somebody has written it so, is named."""
        found = readable(self._session, self._table.rows, ids, self._name_unreadable)
        try:
            self._learn({row["actor"] for row in found})
        except ConfigurationError as error:
            raise self._break("edited", "; ".join(error.faults)) from error
        return found

    def _name_unreadable(self, id_: str, error: Exception) -> None:
        text = f"row {id_} was edited: it cannot be read ({type(error).__name__})"
        raise self._break("edited", text, id_) from error

    def _learn(self, actors: set[str]) -> None:
        """Read the codes of actors."""
        new = actors - self._codes.keys()
        if new:
            self._codes |= actor_codes.codes_of(self._session, new, create=False)

    def _fits(self, row: Row, segment: SegmentRow, number: int | None = None) -> bool:
        """Whether the code of a row is that of what it says, and of its number, or of another one."""
        try:
            self._learn({row["actor"]})
            return row_fits(
                RowCodes(self._table, self._keys, segment.key, segment.form), row, self._codes.get(row["actor"]), number
            )
        except ODD:  # it has values of other types
            return False

    def _misfit(self, row: Row, segment: SegmentRow, expected: int) -> Broken:
        """Why a row does not fit: it was moved, inserted, or edited."""
        id_, number = row["id"], row["number"]
        for one in range(segment.first, segment.last + 1):
            if one != number and self._fits(row, segment, one):
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

    def _count_others(self) -> None:
        """Rows of before the chain, and rows that wait."""
        table, found, session = self._table.table, self._found, self._session
        found.waiting = session.scalar(select(func.count()).select_from(table).where(table.number.is_(None))) or 0
        found.unproven = session.scalar(select(func.count()).select_from(table).where(table.number == 0)) or 0
        try:
            found.waits_since = waiting_rows.waits_since(session, self._table)
        except Exception:  # noqa: BLE001  # a moment that cannot be read; the row is named below
            found.waits_since = None

    def _look_for_strangers(self, segments: Sequence[SegmentRow]) -> None:
        """Rows that are in no chain, and say otherwise."""
        table, session = self._table.table, self._session
        at = getattr(table, self._table.at)
        refused = session.scalar(
            select(table.id).where(table.number != 0, table.number < 0).order_by(table.id).limit(1)
        )
        if refused is not None:
            raise self._break(
                "inserted",
                f"row {refused} was inserted: nobody with a key has signed it, so it was not sealed; look into it, then delete it",
                refused,
            )
        if session.get_bind().dialect.name == "sqlite":  # there a column takes any value
            odd = session.scalar(
                select(table.id).where(table.number.is_not(None), func.typeof(table.number) != "integer").limit(1)
            )
            if odd is not None:
                raise self._break("inserted", f"row {odd} was inserted: its number is none", odd)
        last = segments[-1].last if segments else 0
        beyond = select(table.id).where(table.number != 0, table.number > last).order_by(table.number).limit(1)
        if (id_ := session.scalar(beyond)) is not None:
            raise self._break(
                "inserted",
                f"row {id_} was inserted: its number is beyond the end of the chain, or the end was cut off",
                id_,
            )
        if segments:
            end = segments[0].opened_at + waiting_rows.OTHER_RELEASE
            late = select(table.id).where(table.number == 0, at > end).order_by(table.id).limit(1)
            if (id_ := session.scalar(late)) is not None:
                raise self._break(
                    "inserted",
                    f"row {id_} was inserted: it says that it is older than the chain, and its time is later",
                    id_,
                )
        self._look_at_waiting(segments)
        for _ in self._rows_where(self._table.rows.c.number == 0):  # one that cannot be read is named
            pass

    def _look_at_waiting(self, segments: Sequence[SegmentRow]) -> None:
        """Rows that wait have a signature, but those of a release before."""
        began = segments[0].opened_at if segments else None
        for row in self._rows_where(self._table.rows.c.number.is_(None)):
            fault = waiting_rows.fault_of(self._table, row, self._believed)
            is_old = row["code"] is None and (began is None or waiting_rows.is_of_before(row[self._table.at], began))
            if fault and not is_old:
                raise self._break(
                    "inserted", f"row {row['id']}, which waits to be sealed, was inserted or edited: {fault}", row["id"]
                )

    def _rows_where(self, which: ColumnElement[bool]) -> Iterator[Row]:
        """Rows by their ids, a page at a time."""
        rows, after = self._table.rows, ""
        while True:
            query = select(rows.c.id).where(which, rows.c.id > after).order_by(rows.c.id).limit(PAGE)
            ids = self._session.scalars(query).all()
            yield from self._read(ids) if ids else ()
            if len(ids) < PAGE:
                return
            after = ids[-1]
