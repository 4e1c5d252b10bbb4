"""`EventCounter`: adds what the journal says to the counts in Redis, apart from SQL (protocol 15).

The counts and the id of the last entry that they contain change in one script, which refuses a part of the journal that others have counted. So
each entry counts once, whoever counts, and however often one of them dies. The recorder removes no entry before it is counted.
"""

import logging
import re
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from redis.exceptions import ResponseError

from conventions.core.error_text import clean
from conventions.core.secrets_in_text import without_secrets
from conventions.core.value_bounds import MOST_CHARACTERS
from conventions.metrics.event_sums import Sums
from conventions.metrics.read_counts import BETWEEN, START
from conventions.records.journal import ODD, AuditJournalEntry, Event, JournalEntry, position_of, read_entry
from conventions.storage.redis_store import Store

logger = logging.getLogger(__name__)

_Named: TypeAlias = tuple[str, int, int, str, str]
_Entries: TypeAlias = Sequence[tuple[bytes, dict[bytes, bytes]]]
ID = re.compile(rb"\d{1,19}-\d{1,19}")

AT_ONCE = 500  # entries in one read: the server serves nobody else during a call
LOOK_EVERY = 60.0  # seconds between two looks at the mark that others may have moved
KEPT_IDS = 10_000  # events without a claim whose repetition is noticed
MESSAGE = 300  # characters of an error that a cause keeps


class EventCounter:
    """Counts the journal of one application. It may be called from several threads.

    Args:
        store: where journal and counts are.
        split_after: seconds; a longer run is counted as overlong.
        keeps: bytes of the entries that are kept for `take`, so that each is parsed once.
    """

    def __init__(self, store: Store, split_after: float = 60.0, keeps: int = 8 * 1024 * 1024) -> None:
        self._store = store
        self._split_after = split_after
        self._journal, self._mark = store.key("journal"), store.key("counts", "last")
        self._lock = threading.Lock()
        self._last: bytes | None = None  # the id of the last entry that was counted; `None`: to be asked
        self._looks_at = 0.0
        self._keeps = self._room = keeps
        self._read: dict[bytes, tuple[JournalEntry | AuditJournalEntry, int]] = {}
        self._seen: OrderedDict[_Named, None] = OrderedDict()

    def count_all(self) -> int:
        """Count what is there. Returns how many entries. Raises: RedisError: what was not counted is counted the next time."""
        number = 0
        while found := self._count_some():
            number += found
        return number

    def count_up_to(self, id_: bytes) -> None:
        """Count all entries up to this one, unless they are counted. Raises: RedisError."""
        with self._lock:
            if position_of(cursor := self._cursor()) >= position_of(id_):
                self._begins_anew(cursor)
        while position_of(self._cursor()) < position_of(id_) and self._count_some():
            pass

    def count(self, entries: Mapping[bytes, dict[bytes, bytes]]) -> None:
        """Count entries that follow each other in the journal, after all before them. Raises: RedisError, see `count_all`.

        Args:
            entries: their fields by id, in their order, and without a gap. Somebody has read them for another reason.
        """
        first = next(iter(entries))
        with self._lock:
            while True:
                cursor = self._cursor()
                new = _behind(entries, cursor)
                if not new and self._begins_anew(cursor):
                    continue
                if not new:
                    return
                if len(new) < len(entries) or not (before := self._after(cursor, b"(" + first)):
                    self._add(cursor, new)
                else:
                    self._add(cursor, before)

    def _cursor(self) -> bytes:
        if self._last is None or time.monotonic() > self._looks_at:
            redis: Any = self._store.redis
            found = redis.get(self._mark) if redis.type(self._mark) in (b"string", b"none") else b"of another type"
            self._last = self._readable(found)
            self._looks_at = time.monotonic() + LOOK_EVERY
            self._begins_anew(self._last)
        return self._last

    def _readable(self, found: bytes | None) -> bytes:
        """The mark, or the beginning of the journal where there is none. What another program wrote is deleted: recording waits for the count."""
        if found is None or ID.fullmatch(found):
            return found or START
        logger.error(
            "what was counted last cannot be read, so what is in the journal is counted once more: %r", found[:80]
        )
        self._store.redis.delete(self._mark)
        return START

    def _begins_anew(self, last: bytes) -> bool:
        """Whether somebody has deleted the journal, and its ids are older than what was counted: the clock of the server was set back.

        Then it is counted from its start. Asked where nothing new is found, and so at most once for each read.
        """
        redis: Any = self._store.redis
        if last == START:
            return False
        try:
            newest: bytes = redis.xinfo_stream(self._journal)["last-generated-id"]
        except ResponseError:  # there is none
            return False
        if position_of(newest)[0] >= position_of(last)[0]:  # as `count_events` compares them
            return False
        self._last = START
        return True

    def _count_some(self) -> int:
        """Count one part. Returns how many entries it had, or 1 if others have counted meanwhile."""
        with self._lock:
            cursor = self._cursor()
            found = self._after(cursor, b"+")
            if not found and self._begins_anew(cursor):
                cursor = START
                found = self._after(cursor, b"+")
            return self._add(cursor, found) if found else 0

    def _after(self, cursor: bytes, end: bytes) -> _Entries:
        """The entries that are to be counted next."""
        redis: Any = self._store.redis
        found: _Entries = redis.xrange(self._journal, b"(" + cursor, end, count=AT_ONCE)
        return found

    def _add(self, last: bytes, found: _Entries) -> int:
        """Count the entries that follow the one that was counted last. Returns how many, or 1 if others have counted meanwhile."""
        newest = found[-1][0]
        sums, unclaimed = self._sums_of(found)
        self._last = None  # until the answer is known
        answer: bytes = self._store.run("count_events", list(_arguments(last, newest, sums)))
        self._last = answer
        if answer != newest:
            return 1
        self._seen.update(dict.fromkeys(unclaimed))  # not before: this part may have to be counted once more
        while len(self._seen) > KEPT_IDS:
            self._seen.popitem(last=False)
        return len(found)

    def _sums_of(self, found: _Entries) -> tuple[Sums, set[_Named]]:
        """The sums of a part, and the names of its events that have no claim."""
        sums, unclaimed = Sums(self._split_after), set[_Named]()
        for id_, fields in found:
            try:
                entry = read_entry(id_, fields, self._store.entry_signatures)
            except ODD:  # the recorder puts it aside
                continue
            self._keep(entry, fields)
            if not isinstance(entry, JournalEntry):
                continue
            if entry.fence == 0:
                name = _name_of(entry.event)
                # Its writer had no answer, and has written it again; in SQL it is one row.
                if name in self._seen or name in unclaimed:
                    continue
                unclaimed.add(name)
            sums.add(entry.event, entry.at_ms)
        return sums, unclaimed

    def _keep(self, entry: JournalEntry | AuditJournalEntry, fields: Mapping[bytes, bytes]) -> None:
        size = sum(map(len, fields.values()))
        if size <= self._room and entry.id not in self._read:
            self._room -= size
            self._read[entry.id] = entry, size

    def take(self, id_: bytes) -> JournalEntry | AuditJournalEntry | None:
        """An entry that was read for the count, and is not read a second time for SQL. `None`: it is not kept."""
        entry, size = self._read.pop(id_, (None, 0))
        self._room += size
        return entry

    def forget(self) -> None:
        """Forget the entries that are kept for `take`: another recorder has them."""
        with self._lock:
            self._read.clear()
            self._room = self._keeps


def _name_of(event: Event) -> _Named:
    return event.message_id, event.generation, event.attempt, event.token, event.kind


def _behind(entries: Mapping[bytes, dict[bytes, bytes]], cursor: bytes) -> _Entries:
    """Those of entries in their order that come after the one that was counted last: mostly all of them."""
    found, last = list(entries.items()), position_of(cursor)
    return found[bisect_right(found, last, key=lambda one: position_of(one[0])) :]


def _arguments(last: bytes, newest: bytes, sums: Sums) -> Iterator[str | bytes | int]:
    """The arguments of `count_events`."""
    yield last
    yield newest
    yield len(sums.minutes)
    for (minute, series), counts in sums.minutes.items():
        yield from (minute, _name(series.task), _name(series.queue), len(counts))
        for name, count in counts.items():
            yield from (_name(name), count)
    yield len(sums.causes)
    for fingerprint, cause in sums.causes.items():
        said = clean(without_secrets(cause.message))[:MESSAGE]
        yield from (
            _name(fingerprint),
            _name(cause.task),
            _name(cause.queue),
            _name(cause.error),
            said,
            cause.first,
            cause.last,
        )
        yield from (_name(cause.example), cause.retried, cause.dead)
        by_whom = [(f"worker {name}", count) for name, count in cause.workers.items()]
        by_whom += [(f"release {name}", count) for name, count in cause.releases.items()]
        by_whom += [(f"minute {minute} {kind}", count) for (minute, kind), count in cause.minutes.items()]
        yield len(by_whom)
        for name, count in by_whom:
            yield from (_name(name), count)
    yield len(sums.retrying)
    for message_id, why in sums.retrying.items():
        yield from (_name(message_id), "" if why is None else f"{_name(why[0])}{BETWEEN}{_name(why[1])}")
    for release, at in sums.releases.items():
        yield from (_name(release), at)


def _name(text: str) -> str:
    return clean(text)[:MOST_CHARACTERS].replace(BETWEEN, "?")
