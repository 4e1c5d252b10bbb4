"""`AuditSealer`: puts rows that wait into their chains, beside the recorder, and tells the heads of the chains to the log and to Redis.

Whoever can alter SQL alone can cut the end of a chain off, with its rows, and nothing in SQL shows it. A head that was told elsewhere does.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from conventions.core.audit_keys import AuditKeys
from conventions.core.rounds import Rounds
from conventions.proof import heads
from conventions.storage.redis_store import Store

if TYPE_CHECKING:
    from conventions.proof.heads import Head
    from conventions.storage.database import Database

logger = logging.getLogger(__name__)

EVERY = 2.0  # seconds between two looks: a row waits for at most 10
LOG_EVERY = 600.0  # seconds between two lines of the log with the heads, where they have changed
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
        self._has_looked_back = False
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
        from conventions.proof import chain_ends, waiting_rows  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import
        from conventions.proof.proven_tables import TABLES  # noqa: PLC0415  # the same

        if not self._leads():
            self._has_looked_back = False
            return
        database = self._database()
        if not self._has_looked_back:
            self._look_back(database)
            self._has_looked_back = True
        for table in TABLES:
            waiting_rows.seal(database, table, self._keys, self._store.entry_signatures)
        with database.session(read_only=True) as session:
            self._tell(chain_ends.heads(session, self._keys))

    def _look_back(self, database: "Database") -> None:
        """Compare SQL with the heads that Redis has, and look again at rows whose key was not here."""
        from conventions.proof import chain_ends, waiting_rows  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import
        from conventions.proof.proven_tables import TABLES  # noqa: PLC0415  # the same
        from conventions.records import audit  # noqa: PLC0415  # the same
        from conventions.records.audit_entry import AuditEntry  # noqa: PLC0415  # the same

        with database.session() as session:
            now = chain_ends.heads(session, self._keys)
            for before in kept_heads(self._store):
                if before.key not in self._keys or not before.is_genuine(self._keys):
                    continue
                end = now.get(before.chain)
                if end is not None and (end.last, end.hash) != (before.last, before.hash) and end.last <= before.last:
                    logger.error(
                        "the audit in SQL ends before what was sealed: %s %s to %s are missing, or others. Was the database restored "
                        "from a copy? head then: %s, head now: %s",
                        before.chain, end.last + 1, before.last, before, end,
                    )  # fmt: skip
                    audit.record(session, AuditEntry("system", "audit cut", before.chain, None, str(before), str(end)))
            for table in TABLES:
                waiting_rows.forgive(session, table)

    def _tell(self, now: "dict[str, Head]") -> None:
        """Keep heads in Redis when they have changed, and print them now and then."""
        if now != self._told:
            key = _key(self._store)
            with self._store.redis.pipeline() as pipe:
                pipe.hset(key, mapping={name: str(head) for name, head in now.items()})
                pipe.expire(key, KEPT)
                pipe.execute()
            self._told = now
        if now != self._logged and time.monotonic() - self._logged_at >= LOG_EVERY:
            for head in now.values():
                logger.log(self._level, "audit head %s", head)
            self._logged, self._logged_at = now, time.monotonic()


def kept_heads(store: Store) -> "list[Head]":
    """The heads that Redis keeps. Raises: RedisError."""
    values: dict[bytes, bytes] = store.redis.hgetall(_key(store))  # type: ignore[assignment]  # redis-py types sync and async as one
    return heads.find(" ".join(value.decode(errors="replace") for value in values.values()))


def _key(store: Store) -> str:
    return store.key("audit", "heads")
