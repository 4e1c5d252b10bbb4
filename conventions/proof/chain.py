"""`Chain`: gives the rows of a table their numbers and codes, under a lock, so that there is one order of them and no fork.

Each row has a number, one more than the row before it, and a code, an HMAC of what it says and of its number. The hash of the chain is SHA-256 of
the hash before and of that code. A segment is a part of a chain: a day, or `MOST_ROWS` rows. It has the hashes at its two ends, and is signed, so
that its rows can be deleted and the chain still fits. The last segment is the head. The idea is that of Schneier and Kelsey, *Secure audit logs*
(1999), with a signed head as in Crosby and Wallach, *Tamper-evident logging* (2009).
"""

import hmac
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from secrets import token_hex
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from conventions.core.audit_keys import AuditKeys
from conventions.core.errors import ConfigurationError
from conventions.core.time_units import milliseconds
from conventions.proof import actor_codes
from conventions.proof.proven_tables import FORM, ProvenTable
from conventions.proof.row_codes import RowCodes
from conventions.proof.unreadable_rows import is_unreadable
from conventions.storage.database import insert_into, utc_now
from conventions.storage.tables import SegmentRow

MOST_ROWS = 100_000  # of a segment
LONGEST = timedelta(days=1)  # that a segment takes rows
LATEST = timedelta(minutes=10)  # by which clocks may differ
IDLE = 30.0  # seconds after which PostgreSQL ends a transaction that does nothing, as that of a process that was paused, and so frees the lock


class Chain:
    """The end of a chain, in one transaction. The first row that it numbers locks it until the transaction ends.

    Args:
        session: the transaction.
        table: whose rows it numbers.
        keys: the first one seals.
        now: the present moment.
    """

    def __init__(
        self, session: Session, table: ProvenTable, keys: AuditKeys, *, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._session, self._table, self._keys, self._now = session, table, keys, now
        self._end: SegmentRow | None = None
        self._began = datetime.min.replace(tzinfo=UTC)

    @property
    def began(self) -> datetime:
        """When the chain did; known once it is locked."""
        return self._began

    def number(self, rows: Sequence[dict[str, Any]]) -> None:
        """Give rows, in their order, a number and a code. They must all be stored, or the transaction be given up.

        Raises:
            ConfigurationError: the chain was sealed last with a key that is not here, or somebody has changed its end or a salt.
        """
        if not rows:
            return
        end = self._end or self._open()
        coded = actor_codes.codes_of(self._session, (row["actor"] for row in rows))
        codes = RowCodes(self._table, self._keys, end.key, end.form)
        latest = self._now() + LATEST
        for row in rows:
            if end.last - end.first + 1 >= MOST_ROWS:
                end.code = code_of_segment(end, self._keys)
                end = self._begin(end)
            end.last += 1
            row["number"] = end.last
            row["code"] = codes.code(row, end.last, coded[row["actor"]])
            end.hash = following(end.hash, row["code"])
            at = row[self._table.at].astimezone(UTC)
            # One with a wrong clock must not keep the segment for years.
            end.first_at, end.last_at = min(end.first_at, at), max(end.last_at, min(at, latest))
        end.code = code_of_segment(end, self._keys)
        self._end = end

    def lock(self) -> SegmentRow:
        """Let nobody else number rows until the transaction ends. Returns its last segment. Raises: ConfigurationError: the same."""
        if self._end is None:
            self._end = self._open()
        return self._end

    def _open(self) -> SegmentRow:
        try:
            return self._opened()
        except ConfigurationError:
            raise
        except Exception as error:
            if not is_unreadable(error):
                raise
            # Not the fault of what is to be recorded: that must wait, and not be put aside.
            fault = f"the end of the chain of {self._table.name} cannot be read ({type(error).__name__}): somebody has changed the database. Rows wait"
            raise ConfigurationError([fault]) from error

    def _opened(self) -> SegmentRow:
        session, row = self._session, SegmentRow
        read_exactly(session)
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds(IDLE)}"))
        beginning = select(row).where(row.chain == self._table.name, row.number == 0).with_for_update()
        first = session.scalar(beginning)
        if first is None:
            self._found()
            first = session.scalars(beginning).one()
        self._began = first.opened_at
        # A statement of its own, which sees what was committed before the lock was free.
        last = select(row).where(row.chain == self._table.name).order_by(row.number.desc()).limit(1)
        end = session.scalars(last.execution_options(populate_existing=True)).one()
        if end.key not in self._keys:
            fault = (
                f"the audit was sealed last with the key {end.key}, which is not in CONVENTIONS_AUDIT_KEYS: put it there, behind that which seals; "
                "applications with one database have the same keys"
            )
            raise ConfigurationError([fault])
        if end.form > FORM:
            fault = f"the chain of {self._table.name} has form {end.form}: a later release seals it. Rows wait for a recorder of that release"
            raise ConfigurationError([fault])
        if not all(one.key in self._keys and is_genuine(one, self._keys) for one in (first, end)):
            raise ConfigurationError(
                [
                    f"the end of the chain of {self._table.name} is not as it was sealed: somebody has changed the database. Rows wait; see `audit verify`"
                ]
            )
        is_over = end.number == 0 or end.key != self._keys.signs_with or end.form != FORM
        return self._begin(end) if is_over or self._now() - end.opened_at >= LONGEST else end

    def _found(self) -> None:
        """Begin the chain itself: with a random hash, so that no other chain can take its place."""
        now, start = self._now(), token_hex(32)
        first = _segment(self._table.name, 0, key=self._keys.signs_with, first=1, previous=start, now=now)
        first.code = code_of_segment(first, self._keys)
        values = {name: getattr(first, name) for name in SegmentRow.__table__.columns.keys()}  # noqa: SIM118  # no mapping
        insert = insert_into(self._session, SegmentRow).on_conflict_do_nothing(index_elements=["chain", "number"])
        self._session.execute(insert, values)

    def close(self) -> SegmentRow:
        """Begin the next segment, so that all rows before are in one that changes no more. Returns the one before. Raises: ConfigurationError: the same."""
        end = self.lock()
        if end.last >= end.first:
            self._end = self._begin(end)
        return end

    def _begin(self, before: SegmentRow) -> SegmentRow:
        """The next segment. The one before changes no more."""
        key, now = self._keys.signs_with, self._now()
        new = _segment(before.chain, before.number + 1, key=key, first=before.last + 1, previous=before.hash, now=now)
        new.code = code_of_segment(new, self._keys)
        self._session.add(new)
        return new


def read_exactly(session: Session) -> None:
    """Let PostgreSQL give back each number as it was written, whatever its administrator has set (`extra_float_digits`)."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SET LOCAL extra_float_digits = 3"))


def is_genuine(segment: SegmentRow, keys: AuditKeys) -> bool:
    """Whether a segment is as it was signed. Raises: KeyError: its key is not here."""
    return hmac.compare_digest(code_of_segment(segment, keys).encode(), segment.code.encode())


def following(hash_: str, code: str) -> str:
    """The hash of a chain after one more row."""
    return sha256(f"{hash_}{code}".encode()).hexdigest()


def code_of_segment(segment: SegmentRow, keys: AuditKeys) -> str:
    """The signature of a segment. Raises: KeyError: its key is not here."""
    moments = [one.astimezone(UTC).isoformat() for one in (segment.opened_at, segment.first_at, segment.last_at)]
    fields = [segment.form, segment.number, segment.first, segment.last, segment.previous, segment.hash, *moments]
    return keys.mac(f"conventions audit segment {segment.chain} {' '.join(map(str, fields))}".encode(), segment.key)


def _segment(chain: str, number: int, *, key: str, first: int, previous: str, now: datetime) -> SegmentRow:
    return SegmentRow(
        chain=chain,
        number=number,
        form=FORM,
        key=key,
        first=first,
        last=first - 1,
        previous=previous,
        hash=previous,
        opened_at=now,
        first_at=now,
        last_at=now,
        code="",
    )
