"""An actor is erased from what is kept: rows say a pseudonym from then on, and the chains of the audit still fit (R22)."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, delete, func, or_, select, true, update
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session

from conventions.core.actor import BEAT, SYSTEM, UNSIGNED
from conventions.core.audit_keys import RESERVED, AuditKeys
from conventions.core.entry_signatures import EntrySignatures
from conventions.core.error_text import cut
from conventions.core.errors import BusinessError, ConfigurationError
from conventions.proof import actor_codes, waiting_rows
from conventions.proof.chain import Chain
from conventions.proof.names_in_text import Replacement
from conventions.proof.proven_tables import ACTIONS, EXECUTIONS, FORM, TABLES, ProvenTable, Row
from conventions.proof.row_codes import RowCodes
from conventions.proof.sealed_actions import row_fits
from conventions.proof.unreadable_rows import readable
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import Database, utc_now
from conventions.storage.tables import (
    ActorRoleRow,
    AttemptLogRow,
    DeadLetterRow,
    GroupNoteRow,
    RedriveRow,
    SegmentRow,
)

ERASE = "audit erase"  # the action
BATCH = 500  # rows changed in one transaction
OPEN = "dead"  # the state of a letter that may be sent again
"""`dead_letters/letters.py` has the others."""


@dataclass(frozen=True)
class Erased:
    """What was changed.

    Attributes:
        pseudonym: what stands in the rows in place of the actor.
        executions: how many rows of attempts.
        actions: of actions of people.
        letters: of dead letters.
        logs: of log lines of attempts.
        others: of redrives, notes and roles.
        left: open letters of others that name the actor. They are sent again as they are, so they stay.
    """

    pseudonym: str
    executions: int
    actions: int
    letters: int
    logs: int
    others: int
    left: int


def erase(
    database: Database, keys: AuditKeys, actor: str, *, by: str, reason: str, believed: EntrySignatures | None = None
) -> Erased:
    """Replace an actor's name by a pseudonym in executions, actions, dead letters, redrives, notes and log lines, and take its roles away.

    It may be done again: what came since is erased then, under another pseudonym. One that was stopped is finished by the next one. What waits in a queue,
    in the outbox or in Redis is not changed.

    Args:
        database: the records.
        keys: of the audit.
        actor: whose name.
        by: who erases.
        reason: why.
        believed: whose rows that wait are.

    Raises:
        BusinessError: nothing was changed: the actor is no person, or has open dead letters; or a row is not as it was sealed, or cannot be read.
        SQLAlchemyError: the rest is not changed.
        ConfigurationError: see `Chain`.
    """
    actor = cut(actor)  # as the columns have it
    _check(database, actor, by)
    for table in TABLES:
        waiting_rows.seal(database, table, keys, believed)
    return _Erasing(database, keys, Replacement(actor, actor_codes.new_pseudonym()), believed).run(by, reason)


def rows_of(database: Database, actor: str) -> tuple[int, int]:
    """How many executions and actions an actor has: what a person is told before the name is erased. Raises: SQLAlchemyError."""
    with database.session(read_only=True) as session:
        counts = [
            session.scalar(select(func.count()).select_from(one.table).where(one.table.actor == cut(actor)))
            for one in (EXECUTIONS, ACTIONS)
        ]
    return counts[0] or 0, counts[1] or 0


def _check(database: Database, actor: str, by: str) -> None:
    if actor in (SYSTEM, BEAT, UNSIGNED) or actor.startswith(actor_codes.ERASED):
        raise BusinessError(f"{actor} is no person")
    if not any(one.isalnum() for one in actor):
        raise BusinessError(f"{actor!r} is no name: it has neither a letter nor a digit")
    if actor == by:
        raise BusinessError("nobody erases himself: the action that says so would have the name")
    row = DeadLetterRow
    with database.session(read_only=True) as session:
        count = session.scalar(select(func.count()).select_from(row).where(row.state == OPEN, row.actor == actor))
    if count:
        raise BusinessError(
            f"{count} open dead letters are of {actor}, and would never run again: redrive or discard them first, then erase"
        )


class _Erasing:
    def __init__(
        self, database: Database, keys: AuditKeys, name: Replacement, believed: EntrySignatures | None
    ) -> None:
        self._database, self._keys, self._name, self._believed = database, keys, name, believed

    def run(self, by: str, reason: str) -> Erased:
        counts = {table.name: self._rows(table) for table in TABLES}
        letters, logs, others = self._letters(), self._logs(), self._redrives() + self._notes()
        with self._database.session() as session:
            # What came meanwhile. Nobody writes an execution or an action now, so none gets the old code after it.
            chains = [Chain(session, table, self._keys) for table in TABLES]
            for chain, table in zip(chains, TABLES, strict=True):
                chain.lock()
                counts[table.name] += self._change_actors(session, table, most=None)
            roles = session.execute(delete(ActorRoleRow).where(ActorRoleRow.actor == self._name.name))
            actor_codes.forget(session, self._name.name)
            found = Erased(
                self._name.by,
                counts[EXECUTIONS.name],
                counts[ACTIONS.name],
                letters,
                logs,
                others + int(getattr(roles, "rowcount", 0)),
                self._left(session),
            )
            after = {name: number for name, number in asdict(found).items() if name != "pseudonym"}
            entry = AuditEntry(by, ERASE, found.pseudonym, self._name.of_text(reason), None, after)
            audit.record_once(session, [(entry, utc_now())], chains[TABLES.index(ACTIONS)])
        return found

    # Rows of the chains

    def _rows(self, table: ProvenTable) -> int:
        """Change rows some at a time: first those of the actor, then those that name it in a text."""
        changed = 0
        while True:
            with self._database.session() as session:
                Chain(session, table, self._keys).lock()  # nobody seals a row meanwhile that is read here
                number = self._change_actors(session, table, most=BATCH)
            changed += number
            if number < BATCH:
                break
        for ids in self._pages(table.table.id, self._mentions(table)):
            with self._database.session() as session:
                Chain(session, table, self._keys).lock()
                changed += self._change_texts(session, table, ids)
        return changed

    def _change_actors(self, session: Session, table: ProvenTable, most: int | None) -> int:
        rows = table.rows
        query = select(rows.c.id).where(rows.c.actor == self._name.name).limit(most)
        found = self._read(session, table, session.scalars(query).all())
        for row in found:
            self._store(session, table, row, {"actor": self._name.by} | self._texts(table, row))
        return len(found)

    def _change_texts(self, session: Session, table: ProvenTable, ids: Sequence[str]) -> int:
        changed = 0
        for row in self._read(session, table, ids):
            if new := self._texts(table, row):
                self._store(session, table, row, new)
                changed += 1
        return changed

    def _read(self, session: Session, table: ProvenTable, ids: Sequence[str]) -> Sequence[Row]:
        def refuse(id_: str, _: Exception) -> None:
            raise BusinessError(
                f"row {id_} of {table.name} cannot be read, since somebody has written it so: see `audit verify`, and delete it. "
                "The rows before it are erased"
            )

        return readable(session, table.rows, ids, refuse)

    def _texts(self, table: ProvenTable, row: Row) -> dict[str, Any]:
        """The columns of a row that name the actor, without the name."""
        explains = table is ACTIONS and str(row["action"]).startswith(RESERVED)  # its values are of the platform
        names = ("reason",) if explains else table.free
        new = {name: self._name.of(row[name]) for name in names if row[name] is not None}
        return {name: value for name, value in new.items() if value != row[name]}

    def _store(self, session: Session, table: ProvenTable, row: Row, new: dict[str, Any]) -> None:
        """Change a row. Its code in the chain stays; a second one says that this was done by right.

        Only a row that is as it was sealed, or signed, gets one: who has changed it must not have that signed here.
        """
        values, changed = dict(new), {**row, **new}
        if row["number"] is None:
            if not waiting_rows.fault_of(table, row, self._believed):
                waiting_rows.sign(session, table, changed)
                values["code"] = changed["code"]
        elif row["number"] > 0:
            codes = RowCodes(table, self._keys, *self._sealed_with(session, table, row))
            actor_code = actor_codes.codes_of(session, [row["actor"]], create=False).get(row["actor"])
            if not row_fits(codes, row, actor_code):
                raise BusinessError(
                    f"row {row['id']} of {table.name} is not as it was sealed: see `audit verify` first. The rows before it are erased"
                )
            values["erased"] = codes.erased_code(changed, row["number"])
        session.execute(update(table.table).where(table.table.id == row["id"]).values(**values))

    def _sealed_with(self, session: Session, table: ProvenTable, row: Row) -> tuple[str, int]:
        """The name of the key that has sealed a row, and the form."""
        segment, number = SegmentRow, row["number"]
        found = session.execute(
            select(segment.key, segment.form)
            .where(segment.chain == table.name, segment.first <= number, segment.last >= number)
            .limit(1)
        ).first()
        key, form = found or (None, FORM)
        if key is None or key not in self._keys:
            raise ConfigurationError(
                [
                    f"row {row['id']} of {table.name} was sealed with the key {key}, which is not in CONVENTIONS_AUDIT_KEYS"
                ]
            )
        return key, form

    def _mentions(self, table: ProvenTable) -> ColumnElement[bool]:
        return or_(*(_contains(table.rows.c[name], self._name.name) for name in table.free))

    # What no chain covers

    def _letters(self) -> int:
        """Closed letters. They are not sent again, so the message of one goes that is the actor's or names him."""
        row = DeadLetterRow
        columns = (row.actor, row.error_message, row.traceback, row.arguments, row.headers, row.message)

        def message_goes(letter: Any) -> None:
            letter.message = None

        return self._change(row, row.id, columns, row.state != OPEN, also=message_goes)

    def _left(self, session: Session) -> int:
        row = DeadLetterRow
        named = or_(*(_contains(one, self._name.name) for one in (row.error_message, row.arguments, row.headers)))
        return session.scalar(select(func.count()).select_from(row).where(row.state == OPEN, named)) or 0

    def _redrives(self) -> int:
        row = RedriveRow
        return self._change(
            row,
            row.id,
            (row.actor, row.reason, row.selection, row.note, row.fault, row.left_error, row.last_error),
            row.ended_at.is_not(None),
        )

    def _notes(self) -> int:
        row = GroupNoteRow
        return self._change(row, row.fingerprint, (row.actor, row.text), true())

    def _logs(self) -> int:
        row, changed = AttemptLogRow, 0
        for ids in self._pages(row.message_id, _contains(row.lines, self._name.name)):
            with self._database.session() as session:
                for log in session.scalars(select(row).where(row.message_id.in_(ids))):
                    lines = self._name.of_json_lines(log.lines)
                    changed += lines != log.lines
                    log.lines = lines
        return changed

    def _change(
        self,
        table: type[DeclarativeBase],
        key: InstrumentedAttribute[str],
        columns: Sequence[InstrumentedAttribute[Any]],
        which: ColumnElement[bool],
        *,
        also: Callable[[Any], None] = lambda _: None,
    ) -> int:
        """Take the name out of columns of a table, some rows at a time; `also`: what else is done with a row that had it."""
        number = 0
        named = or_(*(_contains(column, self._name.name) for column in columns))
        for ids in self._pages(key, which & named):
            with self._database.session() as session:
                for row in session.scalars(select(table).where(key.in_(ids), which)):
                    before = {column.key: getattr(row, column.key) for column in columns}
                    after = {
                        name: self._name.of_json_lines(value) if name == "message" and value else self._name.of(value)
                        for name, value in before.items()
                    }
                    if after != before:
                        number += 1
                        for name, value in after.items():
                            setattr(row, name, value)
                        also(row)
        return number

    def _pages(self, key: InstrumentedAttribute[str], which: ColumnElement[bool]) -> Iterator[Sequence[str]]:
        """The keys of the rows that match, some at a time, each once."""
        after = ""
        while True:
            with self._database.session(read_only=True) as session:
                query = select(key).where(which, key > after).distinct().order_by(key).limit(BATCH)
                page = session.scalars(query).all()
            if page:
                yield page
                after = page[-1]
            if len(page) < BATCH:
                return


def _contains(column: Any, name: str) -> ColumnElement[bool]:
    """Whether a text, or JSON as text, may have a name: what it finds is looked at again."""
    text = cast(column, Text)
    escaped = json.dumps(name)[1:-1]
    return or_(text.contains(name, autoescape=True), text.contains(escaped, autoescape=True))
