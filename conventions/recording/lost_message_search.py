"""`LostMessages`: finds messages that have disappeared from Redis, and records them as lost. It runs beside the recorder that leads.

A round reads all keys, a few at a time, so that the server hardly notices. Then it looks for the messages that must exist: of
batches, of letters that were sent again, of jobs that will be tried again. A message that is in no queue goes back to its
place. A missing message is recorded as lost only after two rounds have found it missing, and only when everything that
happened before the first of them is in SQL.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from conventions.broker.batch_membership import Join, Member, chunk_id, finish_id
from conventions.broker.codec import headers_in
from conventions.core.actor import SYSTEM
from conventions.core.background_rounds import Rounds
from conventions.core.chunking import batched
from conventions.core.error_text import FailureText
from conventions.core.time_units import milliseconds
from conventions.execution.application import Application
from conventions.recording.restored_redis import compare
from conventions.records import journal_position
from conventions.records.journal import Event, Journal, position_of

logger = logging.getLogger(__name__)

KEYS = 1000  # keys of one look
REST = 200.0  # after a look it rests this many times as long as the look took: at most 0.5 % of the server's time
ROUND = 60.0  # seconds from the end of a round to the next one
LEFT_FOR = 600.0  # seconds after the end of a lease: an outcome may be retried for three minutes
HISTORY_EVERY = 3600.0  # seconds between two looks at SQL, unless something else is lost
SETTLED_AFTER = timedelta(seconds=60)  # a job is looked at only this long after its last recorded attempt
AT_ONCE = 500  # keys, messages or events in one call
BATCHES = 20  # batches of one look, each with the outcomes of its chunks
KEEP_MARK = 86400  # seconds that the mark of a round stays in Redis
ERROR = "Lost"
GONE = FailureText(ERROR, "its message is gone from Redis", "", "")


@dataclass
class Round:
    """What one round has found missing. `copies`: ids of messages that exist under another tag."""

    copies: set[str] = field(default_factory=set)
    claims: dict[str, tuple[str, Event]] = field(default_factory=dict)  # by claim: its token, and the event
    members: dict[str, tuple[Member, Event]] = field(default_factory=dict)  # by message id
    jobs: dict[str, Event] = field(default_factory=dict)  # by message id
    batches: dict[str, Event] = field(default_factory=dict)  # by id: batches that only SQL knows
    ended_at: bytes = b"0-0"  # the last entry of the journal at the end of the round


class _Over(Exception):
    """Ends a round early."""


class LostMessages:
    """Looks for the lost messages of one application.

    Args:
        app: the application. If its messages and claims are on two servers, nothing is looked for.
        leads: says whether this process is the one that looks.
    """

    def __init__(self, app: Application, leads: Callable[[], bool]) -> None:
        self._app, self._leads = app, leads
        self._before: Round | None = None  # the last round
        self._next_history = 0.0
        self._each_round_until = 0.0  # on the monotonic clock: SQL is looked at in each round
        self._mark = b""
        self._pause: Callable[[float], bool] = lambda _: False
        fault = "what is gone from Redis is not known now"
        self._rounds = Rounds("missing", self._turn, ROUND, fault=fault, logger=logger)

    def start(self) -> None:
        """Start the thread that looks."""
        self._rounds.start()

    def stop(self) -> None:
        """Stop the thread that looks."""
        self._rounds.stop()

    def _turn(self) -> None:
        if not self._leads():
            self._before = None
        elif self._app.port.keeps_claims:
            self.round(lambda took: self._rounds.pause(took * REST) or not self._leads())

    def round(self, pause: Callable[[float], bool] = lambda _: False) -> dict[str, int]:
        """Look at everything once. Returns the number of lost messages of each kind.

        Args:
            pause: called after each look with the seconds that the look took. If it returns true, the round ends.

        Raises:
            RedisError, SQLAlchemyError: the round ends here, and the next one begins from the start.
        """
        now, before, found = Round(), self._before or Round(), {"misplaced": 0}
        known, self._pause = self._before is not None, pause
        try:
            self._look_everywhere(now, found)
        except _Over:
            return found
        copies = now.copies | before.copies
        is_recorded = self._is_recorded(before.ended_at)
        if known:
            found["claims"] = self._lose_claims(now, before, copies)
            found["members"] = self._lose_members(now, before, copies)
        is_suspicious = any(found.values()) or before.jobs or before.batches
        if self._was_emptied():
            self._look_each_round()
        looks_now = time.monotonic() < self._each_round_until or time.monotonic() >= self._next_history
        if looks_now or is_suspicious:
            self._look_at_history(now)
            self._next_history = time.monotonic() + HISTORY_EVERY
            if known and is_recorded:
                found["jobs"] = self._lose_recorded(now.jobs, before.jobs, copies)
                found["batches"] = self._lose_recorded(now.batches, before.batches, copies)
        now.ended_at = self._last_entry()
        self._before = now
        _log(found)
        return found

    def _look_each_round(self) -> None:
        # What was tried a moment ago is old enough to be looked at only then, and must be missing in two rounds.
        self._each_round_until = time.monotonic() + SETTLED_AFTER.total_seconds() + 2 * ROUND

    def _look_everywhere(self, now: Round, found: dict[str, int]) -> None:
        if journal_position.read(self._app.store) is None:
            compare(self._app)  # Redis was emptied: this logs it
            self._look_each_round()
        for keys in self._keys():
            began = time.monotonic()
            found["misplaced"] += self._look(keys, now)
            self._rest(began)
        self._look_at_batches(now)

    def _rest(self, began: float) -> None:
        """Rest after a look. Raises: _Over."""
        if self._pause(time.monotonic() - began):
            raise _Over

    # Keys.

    def _keys(self) -> Iterator[list[str]]:
        redis: Any = self._app.store.redis
        cursor = 0
        prefix = self._app.store.key("")
        pattern = re.sub(r"([\[\]?*\\^])", r"\\\1", prefix) + "*"
        while True:
            cursor, keys = redis.scan(cursor, match=pattern, count=KEYS)
            yield [key.decode(errors="surrogateescape").removeprefix(prefix) for key in keys]
            if cursor == 0:
                return

    def _look(self, keys: Sequence[str], now: Round) -> int:
        """Look at some keys. Returns how many messages went back to their places."""
        store, found = self._app.store, 0
        tags = [key.removeprefix("message:") for key in keys if key.startswith("message:")]
        claims = [key.removeprefix("claim:") for key in keys if key.startswith("claim:")]
        now.copies |= {tag.rpartition("~")[0] for tag in tags if "~" in tag}
        for some in batched(tags, AT_ONCE):
            if misplaced := store.run("misplaced_messages", [_bytes(tag) for tag in some]):
                places = [value for tag, payload in misplaced for value in (tag, _wait_of(payload))]
                found += int(store.run("find_places", places))
        for some in batched(claims, AT_ONCE):
            since = milliseconds(LEFT_FOR)
            for left in store.run("left_running", [since, *(_bytes(claim) for claim in some)]):
                claim, token, id_, generation, attempt = (one.decode(errors="backslashreplace") for one in left)
                task, _, key = claim.partition(":")
                event = _event(id_, task, key=key, generation=int(generation), attempt=int(attempt), token=token)
                now.claims[claim] = (token, event)
        return found

    def _lose_claims(self, now: Round, before: Round, copies: set[str]) -> int:
        arguments: list[Any] = []
        for claim, (token, event) in now.claims.items():
            known = before.claims.get(claim)
            if known and known[0] == token and event.message_id not in copies:
                arguments += (claim, token, event.message_id, event.encode(self._app.store.entry_signatures))
        return sum(int(self._app.store.run("lose_claims", some)) for some in batched(arguments, 4 * AT_ONCE))

    # Batches.

    def _look_at_batches(self, now: Round) -> None:
        store, began, cursor = self._app.store, time.monotonic(), 0
        while True:
            cursor, some_ids = store.redis.zscan(store.key("batches"), cursor, count=KEYS)
            self._rest(began)
            for some in batched((id_ for id_, _ in some_ids), BATCHES):
                began = time.monotonic()
                self._look_at_some(now, store.run("open_batches", some))
                self._rest(began)
            if cursor == 0:
                return
            began = time.monotonic()

    def _look_at_some(self, now: Round, found: Sequence[Sequence[Any]]) -> None:
        for id_, state, task, actor, chunks, items, ended in found:
            batch, name, who = id_.decode(), task.decode(), actor.decode() or SYSTEM
            if state == b"splitting":
                now.members[batch] = (Member(batch, "splitter"), _event(batch, name, actor=who))
            else:
                one = Chunks(batch, name, who, int(chunks), int(items or 0), {*map(int, ended)})
                self._look_at_chunks(now, one)

    def _look_at_chunks(self, now: Round, one: "Chunks") -> None:
        size = getattr(self._app.tasks.get(one.task), "chunk_size", 0)
        open_ones = ((index, chunk_id(one.batch, index)) for index in range(one.chunks) if index not in one.ended)
        for some in batched(open_ones, AT_ONCE):
            began = time.monotonic()
            places = self._app.broker.places([id_ for _, id_ in some])
            for (index, id_), place in zip(some, places, strict=True):
                if place is None:
                    items = max(0, min(size, one.items - index * size))
                    member = Member(one.batch, "chunk", index, items)
                    now.members[id_] = (member, _event(id_, f"{one.task}.chunk", actor=one.actor))
            self._rest(began)

    def _lose_members(self, now: Round, before: Round, copies: set[str]) -> int:
        arguments: list[Any] = []
        for id_, (member, event) in now.members.items():
            if id_ in before.members and id_ not in copies:
                outcome: Any = "dead" if member.role == "splitter" else "cancelled"
                join = Join(member, outcome, self._app.batches.keep).encode()
                arguments += (
                    member.batch_id,
                    member.role,
                    member.number,
                    id_,
                    join,
                    event.encode(self._app.store.entry_signatures),
                )
        return sum(int(self._app.store.run("lose_members", some)) for some in batched(arguments, 6 * AT_ONCE))

    # Jobs and batches in SQL.

    def _look_at_history(self, now: Round) -> None:
        from conventions.recording import lost_message_rows  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        before = datetime.now(UTC) - SETTLED_AFTER
        for events in lost_message_rows.unended(self._app.database, before):
            places = self._app.broker.places([event.message_id for event in events])
            now.jobs |= {event.message_id: event for event, place in zip(events, places, strict=True) if place is None}
        # Redis remembers every batch for longer than this.
        since = datetime.now(UTC) - self._app.batches.keep / 2
        tasks = [name for name, task in self._app.tasks.items() if getattr(task, "role", "") == "splitter"]
        for events in lost_message_rows.cut_batches(self._app.database, tasks, since, before):
            gone = self._gone_batches(events)
            ended = lost_message_rows.batches_with_an_end(self._app.database, [*gone]) if gone else set()
            now.batches |= {id_: event for id_, event in gone.items() if id_ not in ended}

    def _gone_batches(self, events: Sequence[Event]) -> dict[str, Event]:
        """Those of these batches of which Redis has nothing, by id."""
        ids = [event.message_id for event in events]
        messages = [*ids, *map(finish_id, ids)]  # a batch may be sent again, or have its finish on the way
        known = self._app.batches.states(ids)
        there = {id_ for id_, place in zip(messages, self._app.broker.places(messages), strict=True) if place}
        there |= {id_ for id_ in ids if id_ in known or finish_id(id_) in there}
        return {event.message_id: event for event in events if event.message_id not in there}

    def _lose_recorded(self, now: dict[str, Event], before: dict[str, Event], copies: set[str]) -> int:
        """Record what both rounds have found missing. Everything that happened before the first one is in SQL."""
        lost = [
            event
            for id_, event in now.items()
            if id_ not in copies
            and (known := before.get(id_))
            and (known.generation, known.attempt) == (event.generation, event.attempt)
        ]
        for some in batched(lost, AT_ONCE):
            # A job may be lost more than once.
            self._app.journal.append([replace(one, token=f"lost-{uuid4().hex[:12]}") for one in some])
        for event in lost:  # the next round must not find them again before the recorder has them
            del now[event.message_id]
        return len(lost)

    def _was_emptied(self) -> bool:
        """Whether the server has lost the mark of the last round."""
        redis, key = self._app.store.redis, self._app.store.key("round")
        emptied = self._before is not None and redis.get(key) != self._mark
        self._mark = uuid4().hex.encode()
        redis.set(key, self._mark, ex=KEEP_MARK)
        return emptied

    def _last_entry(self) -> bytes:
        journal: Journal = self._app.journal
        redis = self._app.store.redis
        if not redis.exists(journal.key):
            return b"0-0"
        found: bytes = redis.xinfo_stream(journal.key)["last-generated-id"]
        return found

    def _is_recorded(self, entry: bytes) -> bool:
        """Whether SQL has every entry of the journal up to this one."""
        oldest: Any = self._app.store.redis.xrange(self._app.journal.key, count=1)
        return not oldest or position_of(oldest[0][0]) > position_of(entry)


@dataclass(frozen=True, slots=True)
class Chunks:
    """A batch that waits for some of its chunks. `ended`: the indexes of chunks with an outcome."""

    batch: str
    task: str
    actor: str
    chunks: int
    items: int
    ended: set[int]


def _event(id_: str, task: str, **values: Any) -> Event:
    # The same token each time: a message that is found twice gives one event.
    return Event(id_, "lost", task=task, failure=GONE, **({"token": "lost"} | values))


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _wait_of(payload: bytes) -> int:
    """Milliseconds until a message is due, by its header `eta`. 0 if it has none, or none that can be read."""
    try:
        eta = headers_in(payload).get("eta")
        moment = datetime.fromisoformat(eta) if eta else None
    except (ValueError, TypeError):
        return 0
    if moment is None:
        return 0
    left = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)
    return max(0, milliseconds(left))


def _log(found: dict[str, int]) -> None:
    if count := found["misplaced"]:
        logger.warning(
            "%d messages were in no queue, since somebody deleted keys of Redis; they have their places again", count
        )
    if count := sum(number for kind, number in found.items() if kind != "misplaced"):
        logger.error(
            "%d jobs are lost: their messages are gone from Redis (%s); `celery lost` lists them",
            count,
            ", ".join(f"{kind}: {number}" for kind, number in found.items() if number and kind != "misplaced"),
        )
