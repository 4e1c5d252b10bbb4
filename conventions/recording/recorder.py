"""`Recorder`: moves the journal from Redis into SQL, in a process of its own beside the worker.

It reads an entry, commits it to SQL, and only then removes it from the stream. If a process dies in between, the entry is read
again. The second time it changes nothing, since each event has one id (protocol 15).
"""

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import RedisError, ResponseError

from conventions.core.audit_keys import AuditKeys
from conventions.core.background_rounds import rest
from conventions.core.chunking import batched
from conventions.core.entry_signatures import KEY_NOT_HERE, NOT_SIGNED, EntrySignatures
from conventions.core.error_text import first_line
from conventions.core.lease_timings import USUAL, Timings
from conventions.core.network_errors import is_network_error
from conventions.metrics.event_counter import ID, EventCounter
from conventions.recording.new_entries import AT_ONCE, GROUP, Found, NewEntries
from conventions.records import journal_position
from conventions.records.journal import ODD, AuditJournalEntry, Journal, JournalEntry, read_entry
from conventions.storage.redis_store import Store, run_of

if TYPE_CHECKING:
    from conventions.storage.database import Database

logger = logging.getLogger(__name__)

BATCH, LARGEST_BATCH = 500, 5000  # events in one transaction; a larger batch takes less time for each event
BLOCK = 0.25  # seconds that one read waits for events; a worker that stops may have to wait for that read
GATHER = 0.1  # seconds in which events collect: one transaction for each event would cost more than the jobs
FORGOTTEN_AFTER = 3600.0  # seconds after which a consumer that has read nothing is forgotten
HURRIES_AT = 5.0  # seconds: the longer the oldest event waits, the less the recorder rests; from this age on not at all
LOOK_FOR_LEFT_EVERY = 1.0  # seconds between two looks for what dead recorders have left
STANDBY = 2.0  # seconds between two looks of a recorder that does not lead
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between two tries while SQL or Redis is away
LAST_DRAIN = 3.0  # seconds that a recorder goes on recording when it stops
KEEP_REJECTED = 30 * 86400  # seconds that the list of rejected entries is kept after its last addition


class Recorder:
    """Records the journal of one application. Any number may run: one leads, the others stand by.

    Args:
        store: where the journal is.
        database: makes the database. It is called for the first event, so that a recorder that stands by does not import SQLAlchemy.
        timings: how long it leads, and when it takes over what a dead recorder has read.
        rest: how long it rests after each batch, as a multiple of the time that the batch took. It rests less if events have
            waited for long, see `HURRIES_AT`.
        counter: counts each event before it is removed from the stream.
        audit_keys: seal what it writes; without them its rows wait for a recorder that has keys.

    Attributes:
        counter: the same.
    """

    def __init__(
        self,
        store: Store,
        database: "Callable[[], Database]",
        *,
        timings: Timings = USUAL,
        rest: float = 0.0,
        counter: EventCounter | None = None,
        audit_keys: AuditKeys | None = None,
    ) -> None:
        self.name = _name_of(os.getpid())
        self.journal = Journal(store)
        self.rejected = self.journal.rejected_key
        self._store = store
        self._lead = store.key("recorder")
        self._database = database
        self._timings = timings
        self._rest = rest
        self._audit_keys = audit_keys
        self.counter = counter or EventCounter(store)
        self._new = NewEntries(store, self.name, self.counter)
        self._looks_for_left_at = 0.0  # when it looks again for what dead recorders have left, on the monotonic clock
        self._unfinished = False  # a batch that is not recorded, or not removed
        self._away_since: float | None = None
        self._leads_until = 0.0
        self._has_looked_back = False
        # Called when the server has restarted since Redis was last compared with SQL. `None`: there is nothing to compare.
        self.compare: Callable[[], bool | None] | None = None

    def drain_once(self, limit: int = BATCH, block: float = 0.0) -> int:
        """Record one batch, in one transaction, and return how many entries it had.

        Args:
            limit: the most entries.
            block: seconds to wait for the first one.

        Raises:
            RedisError: nothing is lost; what was committed is acknowledged the next time.
            SQLAlchemyError: nothing is lost; the same entries come the next time.
        """
        return self._take(self._read(limit, block))

    def _take(self, found: Found) -> int:
        """Record the entries that were read. Returns how many they are."""
        if not found:
            return 0
        self._unfinished = True
        entries = []
        self.counter.count_up_to(next(reversed(found)))  # they are in order
        for id_, fields in found.items():
            try:
                entries.append(self.counter.take(id_) or read_entry(id_, fields, self._store.entry_signatures))
            except ODD as fault:
                self._reject(id_, fields, fault)
        if entries:
            self._record(entries, found)
        self._unfinished = False
        return len(found)

    def run(self, stop: Callable[[], bool]) -> None:
        """Record until `stop()` returns true. It goes on through every outage of SQL and Redis. Call `finish` after it."""
        pause, limit = FIRST_PAUSE, BATCH
        while not stop():
            try:
                leads = self.lead()
                if not leads:
                    self._stand_by()
                elif not self._has_looked_back:
                    self.take_back()
                    self._has_looked_back = True
                found = self._read(limit, BLOCK) if leads else {}
                begun = time.monotonic()
                recorded = self._take(found)
            except Exception as error:  # noqa: BLE001  # after any error the entry is still there, and recording goes on
                self._log_outage(error)
                rest(pause, stop)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            self._log_recovery()
            if not leads:
                rest(STANDBY, stop)
            elif recorded:
                took = time.monotonic() - begun
                is_behind = recorded == limit
                rest(max(self._rest_after(took, is_behind=is_behind), 0.0 if is_behind else GATHER), stop)
            limit = min(2 * limit, LARGEST_BATCH) if recorded == limit else BATCH

    def take_back(self) -> int:
        """Record what others have put aside since they did not have its key, or did not believe what is not signed. Returns how many entries.

        What this process cannot believe now it never can, so one look is enough while it leads.

        Raises:
            RedisError, SQLAlchemyError: what was recorded is put aside no more, or is recorded once more, which changes nothing.
        """
        redis: Any = self._store.redis
        taken, start = 0, 0
        while self.lead() and (some := redis.lrange(self.rejected, start, start + BATCH - 1)):
            found = [one for raw in some if (one := _put_aside(raw, self._store.entry_signatures)) is not None]
            if found:
                self._record([one.entry for one in found], {one.entry.id: one.fields for one in found})
                for one in found:
                    redis.lrem(self.rejected, 1, one.raw)
            taken += len(found)
            start += len(some) - len(found)
        return taken

    def _stand_by(self) -> None:
        """Another recorder leads: what was read and not recorded is left to it."""
        self._has_looked_back, self._looks_for_left_at = False, 0.0
        self._new.forget()
        self.counter.forget()

    def count(self) -> None:
        """Count what is in the journal, also while SQL does not answer. Any thread may call it. Raises: RedisError."""
        self._new.read_ahead()

    def _rest_after(self, took: float, *, is_behind: bool) -> float:
        rest = min(took * self._rest, self._timings.recorder_lead / 2)
        if rest and is_behind:
            try:
                rest *= max(0.0, 1 - self.journal.age() / HURRIES_AT)
            except RedisError:  # the next read reports it
                return 0.0
        return rest

    def finish(self, seconds: float = LAST_DRAIN) -> None:
        """Record the entries that wait, for at most `seconds`, and give the lead up."""
        deadline = time.monotonic() + seconds
        try:
            if time.monotonic() < deadline and self.journal.length() and self.lead():
                while time.monotonic() < deadline and self.drain_once():
                    pass
            self._ask_lead(0.0)
        except Exception as error:  # noqa: BLE001  # another recorder goes on, now or after the next start
            logger.warning("the recorder stops with events that are not recorded: %s", first_line(error))

    def lead(self) -> bool:
        """Take or renew the lead. Returns false if another recorder leads. Raises: RedisError."""
        return self._ask_lead(self._timings.recorder_lead)

    def _ask_lead(self, seconds: float) -> bool:
        """Lead for this many seconds. 0 gives the lead up."""
        won = bool(self._store.script("take_lead")([self._lead], [self.name, int(seconds * 1000)]))
        self._leads_until = time.monotonic() + seconds if won else 0.0
        return won

    @property
    def leads(self) -> bool:
        """Whether this recorder leads, as far as it knows."""
        return time.monotonic() < self._leads_until

    def succeed(self, process: int) -> None:
        """Free the lead of a recorder on this machine that has ended. Raises: RedisError."""
        self._store.script("take_lead")([self._lead], [_name_of(process), 0])

    def _read(self, limit: int, block: float) -> Found:
        try:
            return self._read_group(limit, block)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
        self._store.script("forget_recorders")([self.journal.key], [GROUP, int(FORGOTTEN_AFTER * 1000)])
        return self._read_group(limit, block)

    def _read_group(self, limit: int, block: float) -> Found:
        """Entries that this consumer has not finished. Else entries that a dead consumer has left. Else new entries."""
        redis: Any = self._store.redis
        wanted: dict[str, Any] = {"groupname": GROUP, "consumername": self.name, "count": limit}
        if self._unfinished or self._new.is_lost:
            self._new.forget()  # until none is left: this batch may be smaller than what was read
            own = redis.xreadgroup(streams={self.journal.key: "0"}, **wanted)
            if own and own[0][1]:
                return _entries(own[0][1])
            self._unfinished = self._new.is_lost = False
        return self._left(limit) or self._new.take(limit, block)

    def _left(self, limit: int) -> Found:
        """Entries that a dead consumer has left. It looks for them once a second: the server passes all that waits here each time."""
        if time.monotonic() < self._looks_for_left_at:
            return {}
        redis: Any = self._store.redis
        idle = int(self._timings.abandoned_after * 1000)
        # Also its own that are not here: a server that comes back with an older state has forgotten what was acknowledged.
        abandoned = redis.xautoclaim(self.journal.key, GROUP, self.name, min_idle_time=idle, count=limit)[1]
        # What waits here for long is among them.
        others = {id_: fields for id_, fields in _entries(abandoned).items() if not self._new.waits(id_)}
        if not others:
            self._looks_for_left_at = time.monotonic() + LOOK_FOR_LEFT_EVERY
        return others

    def _record(
        self, entries: Sequence[JournalEntry | AuditJournalEntry], raw: Mapping[bytes, Mapping[bytes, bytes]]
    ) -> None:
        """Commit entries, then remove them from the stream. If SQL refuses the content of some, find these and put them aside."""
        try:
            number = self._commit(entries)
        except Exception as error:
            if not refuses_content(error):
                raise
            if len(entries) == 1:
                self._reject(entries[0].id, raw[entries[0].id], error)
                return
            half = len(entries) // 2
            self._record(entries[:half], raw)
            self._record(entries[half:], raw)
            return
        if not journal_position.advance(self._store, number):
            self._find_mark(number)
        self._acknowledge([entry.id for entry in entries])

    def _find_mark(self, number: int) -> None:
        """The mark in Redis is behind SQL: a recorder died between the two writes, or Redis was restored from a copy."""
        run, mark = run_of(self._store), journal_position.read(self._store)
        is_first = number == 1  # SQL was empty before, so Redis lacks nothing
        if self.compare is None or is_first or (mark and mark.run == run) or self.compare() is None:
            journal_position.write(self._store, number, run)

    def _commit(self, found: Sequence[JournalEntry | AuditJournalEntry]) -> int:
        from conventions.recording.journal_rows import write_rows  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        return write_rows(self._database(), found, self._store.prefix, self._audit_keys)

    def _acknowledge(self, ids: Sequence[bytes]) -> None:
        for some in batched(ids, AT_ONCE):
            with self._store.redis.pipeline(transaction=True) as pipe:
                pipe.xack(self.journal.key, GROUP, *some)
                pipe.xdel(self.journal.key, *some)
                pipe.execute()

    def _reject(self, id_: bytes, fields: Mapping[bytes, bytes], fault: Exception) -> None:
        """Put an entry that cannot be recorded aside, unchanged, so that the entries behind it are recorded."""
        text = json.dumps(
            {
                "id": id_.decode(),
                "fault": first_line(fault),
                # Bytes that are not text are lone surrogates here: encode(errors="surrogateescape") restores them.
                "fields": {_text(name): _text(value) for name, value in fields.items()},
            }
        )
        # Do not log the content: arguments must not be in a log.
        logger.error(
            "entry %s of the journal cannot be recorded and is put aside in %s: %s",
            id_.decode(),
            self.rejected,
            first_line(fault),
        )
        keys = [self.journal.key, self.rejected]
        self._store.script("set_aside")(keys, [GROUP, id_, text, KEEP_REJECTED])

    def _log_outage(self, error: Exception) -> None:
        if self._away_since is not None:
            return
        self._away_since = time.monotonic()
        try:
            backlog = str(self.journal.length())
        except RedisError:
            backlog = "an unknown number of"
        logger.warning(
            "not recorded for now: %s; %s events wait in Redis, and nothing is lost",
            first_line(error),
            backlog,
            exc_info=None if _text_is_enough(error) else error,
        )

    def _log_recovery(self) -> None:
        if self._away_since is not None:
            away, self._away_since = time.monotonic() - self._away_since, None
            logger.warning("recorded again, after %.0f s", away)


class _PutAside(NamedTuple):
    raw: bytes
    entry: JournalEntry | AuditJournalEntry
    fields: dict[bytes, bytes]


def _put_aside(raw: bytes, signatures: EntrySignatures | None) -> _PutAside | None:
    """An entry that was put aside, and is believed here; `None`: it is not, or was put aside for another reason."""
    try:
        found = json.loads(raw)
        if not any(one in found["fault"] for one in (KEY_NOT_HERE, NOT_SIGNED)) or not ID.fullmatch(
            _bytes(found["id"])
        ):
            return None
        fields = {_bytes(name): _bytes(value) for name, value in found["fields"].items()}
        return _PutAside(raw, read_entry(found["id"].encode(), fields, signatures), fields)
    except (*ODD, AttributeError):
        return None


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _name_of(process: int) -> str:
    return f"{socket.gethostname()}:{process}"


def _entries(found: Sequence[tuple[bytes, dict[bytes, bytes] | None]]) -> Found:
    return {id_: fields or {} for id_, fields in found}  # `None`: somebody deleted an entry that was read


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")


def _text_is_enough(error: BaseException) -> bool:
    """Whether the text of the error is enough, without a traceback."""
    sql = sys.modules.get("sqlalchemy.exc")
    return isinstance(error, (RedisError, OSError)) or (sql is not None and isinstance(error, sql.SQLAlchemyError))


def refuses_content(error: Exception) -> bool:
    """Whether SQL refuses the content of the entries. Then it would refuse them for ever."""
    from sqlalchemy.exc import DataError, IntegrityError, StatementError  # noqa: PLC0415  # 0.6 s to import

    if is_network_error(error):
        return False
    return isinstance(error, (DataError, IntegrityError, *ODD)) or type(error) is StatementError
