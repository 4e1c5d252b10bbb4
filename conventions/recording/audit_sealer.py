"""`AuditSealer`: puts rows that wait into their chains, beside the recorder, and tells the heads of the chains to the log and to Redis.

Whoever can alter SQL alone can cut the end of a chain off, with its rows, and nothing in SQL shows it. A head that was told elsewhere does.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from redis.exceptions import ResponseError

from conventions.core.audit_keys import AuditKeys
from conventions.core.background_rounds import Rounds
from conventions.core.error_text import first_line
from conventions.proof import signed_heads
from conventions.storage.redis_store import Store

if TYPE_CHECKING:
    from conventions.proof.signed_heads import Head
    from conventions.storage.database import Database

logger = logging.getLogger(__name__)

EVERY = 2.0  # seconds between two looks: a row waits for at most 10
LOG_EVERY = 600.0  # seconds between two lines of the log with the heads, where they have changed
LONGEST, MOST = 500, 10  # characters of a head that Redis keeps, and heads
KEPT = 90 * 86400  # seconds that Redis keeps the heads after their last change


class AuditSealer:
    """Seals while it leads.

    Args:
        store: knows whose rows are believed, and keeps the heads.
        database: makes the database.
        keys: of the audit.
        leads: whether the recorder of this process leads.
        level: of the log's lines with heads. In production they must not be left out.
    """

    def __init__(
        self,
        store: Store,
        database: "Callable[[], Database]",
        keys: AuditKeys,
        leads: Callable[[], bool],
        *,
        level: int = logging.WARNING,
    ) -> None:
        self._level = level
        self._store, self._database, self._keys, self._leads = store, database, keys, leads
        self._has_begun = False
        self._told: dict[str, Head] = {}
        self._logged: dict[str, Head] = {}
        self._logged_at = -LOG_EVERY
        self._rounds = Rounds(
            "audit sealer", self.look, EVERY, fault="rows of the audit wait to be sealed", logger=logger
        )

    def start(self) -> None:
        """Begin in a thread of its own."""
        self._rounds.start()

    def look(self) -> None:
        """One round. Raises: RedisError, SQLAlchemyError, ConfigurationError: the next round goes on."""
        from conventions.proof import waiting_rows  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import
        from conventions.proof.proven_tables import TABLES  # noqa: PLC0415  # the same

        if not self._leads():
            self._has_begun, self._told = False, {}
            return
        database = self._database()
        if not self._has_begun:
            with database.session() as session:
                for table in TABLES:
                    waiting_rows.forgive(session, table)
            self._has_begun = True
        before = self._before()  # read before SQL: another recorder may be telling a later one
        fault: Exception | None = None
        for table in TABLES:
            try:
                waiting_rows.seal(database, table, self._keys, self._store.entry_signatures)
            except Exception as error:  # noqa: BLE001  # the ends are looked at all the same; it is raised below
                fault = fault or error
        self._compare(database, before)
        if fault is not None:
            raise fault

    def _compare(self, database: "Database", before: "dict[str, Head]") -> None:
        """Look whether the chains have gone on from the ends that are known, and tell the new ones."""
        from conventions.proof import chain_ends  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import
        from conventions.proof.proven_tables import TABLES  # noqa: PLC0415  # the same

        with database.session(read_only=True) as session:
            now = chain_ends.heads(session, self._keys)
            changed = (
                chain_ends.ends(session).keys() - now.keys()
            )  # they are not as they were sealed, or have a key that is not here
            now |= {name: before[name] for name in changed & before.keys()}  # what was told stays
            cut = [
                table
                for table in TABLES
                if (known := before.get(table.name)) is not None
                and (
                    (end := now.get(table.name)) is None
                    or not chain_ends.goes_on(session, table, known, end, self._keys)
                )
            ]
        for table in cut:
            self._say_cut(database, before[table.name], now.get(table.name))
        if cut:
            with database.session(read_only=True) as session:
                now = chain_ends.heads(session, self._keys)
        self._tell(now)

    def finish(self) -> None:
        """Print the heads as they are at the end of a recorder that led: what came since the last line would be in no log."""
        from conventions.proof import chain_ends  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        self._rounds.stop()
        if not self._has_begun:
            return
        try:
            with self._database().session(read_only=True) as session:
                self._print(chain_ends.heads(session, self._keys))
        except Exception as error:  # noqa: BLE001  # whatever it is, the process ends
            logger.warning("the last heads of the audit are not in this log: %s", first_line(error))

    def _before(self) -> "dict[str, Head]":
        """The ends that this process, or Redis, knows of before; the later one of both."""
        found: dict[str, Head] = {}
        for head in sorted(kept_heads(self._store), key=lambda one: one.last):
            if head.key in self._keys and head.is_genuine(self._keys):
                found[head.chain] = head
        for name, head in self._told.items():
            if name not in found or found[name].last < head.last:
                found[name] = head
        return found

    def _say_cut(self, database: "Database", before: "Head", now: "Head | None") -> None:
        """A chain has another end than before. Say so once: from now on it goes on from what is there."""
        from conventions.proof.chain import Chain  # noqa: PLC0415  # the same
        from conventions.proof.chain_ends import genuine_segments  # noqa: PLC0415  # the same
        from conventions.proof.lost_heads import CUT, lost_heads  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import
        from conventions.proof.proven_tables import ACTIONS  # noqa: PLC0415  # the same
        from conventions.records import audit  # noqa: PLC0415  # the same
        from conventions.records.audit_entry import AuditEntry  # noqa: PLC0415  # the same
        from conventions.storage.database import utc_now  # noqa: PLC0415  # the same

        logger.error(
            "the audit in SQL is not what was sealed: the chain of %s ended with row %s, and ends with row %s now, or has other rows. Was the "
            "database restored from a copy? head then: %s, head now: %s",
            before.chain, before.last, now.last if now else 0, before, now,
        )  # fmt: skip
        with database.session() as session:
            chain = Chain(session, ACTIONS, self._keys)
            chain.lock()
            said = lost_heads(session, self._keys, genuine_segments(session, ACTIONS, self._keys))
            if before not in said:  # else somebody has told Redis an old head again
                entry = AuditEntry("system", CUT, before.chain, None, str(before), str(now))
                audit.record_once(session, [(entry, utc_now())], chain)

    def _tell(self, now: "dict[str, Head]") -> None:
        """Keep heads in Redis when they have changed, and print them now and then."""
        if now != self._told:
            key = _key(self._store)
            with self._store.redis.pipeline() as pipe:
                pipe.delete(key)
                if now:
                    pipe.hset(key, mapping={name: str(head) for name, head in now.items()})
                    pipe.expire(key, KEPT)
                pipe.execute()
            self._told = now
        if now != self._logged and (
            time.monotonic() - self._logged_at >= LOG_EVERY or now.keys() != self._logged.keys()
        ):
            self._print(now)

    def _print(self, now: "dict[str, Head]") -> None:
        for name, head in now.items():
            if self._logged.get(name) != head:
                logger.log(self._level, "%s%s", signed_heads.PREFIX, head)
        self._logged, self._logged_at = now, time.monotonic()


def kept_heads(store: Store) -> "list[Head]":
    """The heads that Redis keeps; what somebody has put there in their place is none. Raises: RedisError."""
    try:
        values: dict[bytes, bytes] = store.redis.hgetall(_key(store))  # type: ignore[assignment]  # redis-py types sync and async as one
    except ResponseError:
        return []
    found = (signed_heads.read(value[:LONGEST].decode(errors="replace")) for value in list(values.values())[:MOST])
    return [head for head in found if head is not None]


def _key(store: Store) -> str:
    return store.key("audit", "heads")
