"""`Schedules`: the state of each schedule in Redis: its cursor, its pause and what became of its slots. No Celery.

The *cursor* is the latest slot that was sent or given up, or the time from which slots count. It is in the hash that
RedBeat keeps for an entry, beside RedBeat's own fields; `storage/lua/schedule.lua` names them all. These keys live as
long as the schedule. A pause lives until somebody resumes the schedule, and the history for a month. So both survive a
deploy that removes the schedule and a later one that brings it back.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from redis.exceptions import RedisError, WatchError

from conventions.core.errors import BrokerUnavailable
from conventions.core.json_fields import to_json
from conventions.core.time_units import milliseconds
from conventions.pauses.pause import Pause
from conventions.records.audit_entry import AuditEntry
from conventions.schedules.schedule_state import Begun, Lead, LeadLost, Run, State, meta_of
from conventions.storage.redis_store import Store

HISTORY = 1000  # lines of history of each schedule
KEEP_HISTORY = timedelta(days=30)  # how long the history of a removed schedule is kept
MAY_ARRIVE = timedelta(minutes=1)  # how long an unconfirmed message may take to appear in the broker
SAME_MOMENT = timedelta(seconds=3)  # after a run by hand was sent, another one is taken for the same
BACK_WITHIN = timedelta(minutes=10)  # a removed schedule that comes back later than this is a new one


class Schedules:
    """The state of an application's schedules, read and changed by beat, the command line and the console."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.prefix = store.key("redbeat", "")  # RedBeat's key prefix
        self._paused = store.key("schedule", "paused")
        self._looked = store.key("schedule", "looked")
        self._index, self._statics = f"{self.prefix}:schedule", f"{self.prefix}:statics"

    def key(self, name: str) -> str:
        """The hash of one schedule."""
        return self.prefix + name

    def now(self) -> datetime:
        """The server's clock: one clock for all beats."""
        return self._moment(self._store.redis.time())

    def names(self) -> set[str]:
        """The schedules that the leading beat knows."""
        found: Any = self._store.redis.smembers(self._statics)
        return {name.decode() for name in found}

    def read(self, names: Iterable[str], *, definitions: bool = False) -> tuple[datetime, dict[str, State]]:
        """The server's clock and the state of each schedule, in one round trip. `definitions`: with what beat has read."""
        names = list(names)
        fields = ("cursor", "last", "fault", "begun", *(("gone", "definition") if definitions else ()))
        with self._store.redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(self._paused)
            for name in names:
                pipe.hmget(self.key(name), fields)
            time, paused, *rest = pipe.execute()
        found = {}
        for name, (cursor, last, fault, begun, *more) in zip(names, rest, strict=True):
            pause = paused.get(name.encode())
            found[name] = State(
                cursor=None if cursor is None else datetime.fromtimestamp(int(cursor), UTC),
                pause=None if pause is None else Pause.read(pause),
                last_run=None if last is None else Run.read(last),
                fault=None if fault is None else fault.decode(),
                begun=None if begun is None else datetime.fromtimestamp(int(begun.partition(b":")[0]), UTC),
                gone=bool(more and more[0]),
                definition=json.loads(more[1]) if more and more[1] else None,
            )
        return self._moment(time), found

    def enter(
        self,
        name: str,
        definition: Mapping[str, Any],
        cursor: datetime,
        next_slot: datetime | None,
        *,
        audit_entry: AuditEntry | None = None,
        lead: Lead | None = None,
    ) -> None:
        """Write the definition of a schedule from its file, and its cursor if there is none.

        Args:
            name: the schedule.
            definition: for RedBeat's readers and for people.
            cursor: the time from which the slots of a new schedule count.
            next_slot: its next slot.
            audit_entry: the audit entry, if the schedule is new or changed.
            lead: the lock of the calling beat.

        Raises:
            LeadLost: another beat leads.
        """
        key = self.key(name)
        with self._leading(lead) as pipe:
            pipe.hset(key, "definition", json.dumps(definition, ensure_ascii=False))
            pipe.hsetnx(key, "meta", meta_of(cursor))
            pipe.hsetnx(key, "cursor", str(int(cursor.timestamp())))
            pipe.hdel(key, "gone")
            pipe.persist(key)
            if next_slot is None:
                pipe.zrem(self._index, key)
            else:
                pipe.zadd(self._index, {key: int(next_slot.timestamp())})
            pipe.sadd(self._statics, name)
            pipe.persist(self._history(name))
            self._note(pipe, audit_entry)

    def forget(self, name: str, audit_entry: AuditEntry | None = None, lead: Lead | None = None) -> None:
        """Remove a schedule that is no longer in the list. Its pause stays, its history a month, its cursor minutes.

        Raises:
            LeadLost: another beat leads.
        """
        with self._leading(lead) as pipe:
            pipe.zrem(self._index, self.key(name))
            pipe.hset(self.key(name), "gone", "1")
            pipe.expire(self.key(name), BACK_WITHIN)
            pipe.expire(self._history(name), KEEP_HISTORY)
            pipe.srem(self._statics, name)
            self._note(pipe, audit_entry)

    def begin(
        self,
        name: str,
        message_id: str,
        keep: timedelta,
        *,
        overlap: Literal["allow", "skip", "beside"],
        here: bool,
        slot: datetime | None = None,
        lead: Lead | None = None,
        audit_entry: AuditEntry | None = None,
        seen: str = "",
    ) -> Begun:
        """Ask whether to send a slot, or a run by hand, now. If so, it counts from now on as perhaps under way.

        Args:
            name: the schedule.
            message_id: of the run.
            keep: how long the run is remembered if its end is never reported.
            overlap: `skip`: only if no other run is under way; `beside`: even if one is.
            here: whether messages are on this server.
            slot: the planned time; `None` for a run by hand.
            lead: the lock of the calling beat, which is renewed; needed for a slot.
            audit_entry: the audit entry of a run by hand, in the name of who runs it; it goes into the journal.
            seen: the last run by hand that he knows of: he means another one.

        Raises:
            LeadLost: another beat leads.
        """
        number = "" if slot is None else str(int(slot.timestamp()))
        lock = ("", "", 0) if lead is None else (lead.key, lead.token, milliseconds(lead.seconds))
        arguments = [name, message_id, number, *lock, overlap, int(here), milliseconds(keep)]
        arguments += (
            ["", ""] if audit_entry is None else [audit_entry.encode(self._store.entry_signatures), audit_entry.actor]
        )
        answer, *more = self._store.run("schedule_begin_slot", [*arguments, seen])
        if answer == b"lost":
            raise LeadLost
        if answer == b"go":
            return Begun(since=datetime.fromtimestamp(int(more[0]) / 1000, UTC))
        if answer == b"just":
            return Begun(just=(more[0].decode(), more[1].decode()))
        return Begun(live_id=more[0].decode() if more else None)

    @contextmanager
    def sending(self, message_id: str, *, overlap: str, here: bool) -> Iterator[None]:
        """Send a begun run within the block. If it was not sent, later runs do not wait for it.

        If another server's broker did not confirm it, the message may still appear there, so later runs wait for a
        minute.
        """
        mark = self._store.key("live", message_id)
        try:
            yield
        except Exception as error:
            if overlap != "allow" and not here and isinstance(error, BrokerUnavailable):
                with suppress(RedisError):
                    self._store.redis.pexpire(mark, MAY_ARRIVE)
            elif overlap != "allow":
                with suppress(RedisError):  # if the message did arrive, it marks the run as live by itself
                    self._store.redis.delete(mark)
            raise
        if overlap != "allow" and here:  # from now on the message itself marks the run as live
            with suppress(RedisError):
                self._store.redis.delete(mark)

    @contextmanager
    def by_hand(self, name: str, message_id: str) -> Iterator[None]:
        """Send a begun run by hand within the block. While that lasts, and for a moment after it, no other one begins; none was sent if it raises.

        One that lasts longer than a begun run is waited for has lost its place: then it leaves that to who has it.
        """
        try:
            yield
        except Exception:
            self._leave_place(name, message_id, timedelta())
            raise
        self._leave_place(name, message_id, SAME_MOMENT)

    def _leave_place(self, name: str, message_id: str, after: timedelta) -> None:
        with suppress(RedisError):
            self._store.run("ran_by_hand", [name, message_id, milliseconds(after)])

    def advance(self, name: str, slot: datetime, next_slot: datetime | None, *lines: Run) -> bool:
        """Move the cursor forward to `slot`. False if it is already there or further.

        Args:
            name: the schedule.
            slot: the new cursor; fractions of a second are cut off.
            next_slot: the next slot, for RedBeat's index of due times.
            lines: lines for the history, oldest first.
        """
        last = next((to_json(one) for one in reversed(lines) if one.what == "sent"), "")
        arguments = [name, *_cursor(slot, next_slot), last, HISTORY, *map(to_json, lines)]
        return bool(self._store.run("schedule_advance", arguments))

    def note_look(self, at: datetime) -> None:
        """Note that every schedule was looked at, and what was due then was done."""
        self._store.script("schedules_looked")(
            keys=[self._looked], args=[at.timestamp(), int(KEEP_HISTORY.total_seconds())]
        )

    def looked_at(self) -> datetime | None:
        """The time of the last `note_look`; `None` if it is no longer known."""
        found: Any = self._store.redis.get(self._looked)
        return None if found is None else datetime.fromtimestamp(float(found), UTC)

    def note_fault(self, name: str, fault: str | None) -> None:
        """Note why a slot could not be sent; `None` clears the note, as each sent slot does."""
        if fault is None:
            self._store.redis.hdel(self.key(name), "fault")
        else:
            self._store.redis.hset(self.key(name), "fault", fault)

    def record(self, name: str, run: Run) -> None:
        """Add a run by hand to the history."""
        with self._store.redis.pipeline() as pipe:
            pipe.lpush(self._history(name), to_json(run))
            pipe.ltrim(self._history(name), 0, HISTORY - 1)
            pipe.hset(self.key(name), "last", to_json(run))
            pipe.execute()

    def history(self, name: str, limit: int) -> list[Run]:
        """The lines of a schedule's history, newest first."""
        return self.histories([name], limit)[name]

    def histories(self, names: Iterable[str], limit: int) -> dict[str, list[Run]]:
        """The history of several schedules, in one round trip."""
        names = list(names)
        with self._store.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.lrange(self._history(name), 0, limit - 1)
            found = pipe.execute()
        return {name: [Run.read(one) for one in raw] for name, raw in zip(names, found, strict=True)}

    def pause(self, name: str, pause: Pause, audit_entry: AuditEntry) -> None:
        """Pause a schedule until it is resumed. This replaces an earlier pause."""
        self._store.run("pause_schedule", [name, to_json(pause), audit_entry.encode(self._store.entry_signatures)])

    def resume(
        self,
        name: str,
        at: datetime,
        next_slot: datetime | None,
        audit_entry: AuditEntry,
        *,
        held_back: Run | None = None,
        only: Pause | None = None,
    ) -> bool:
        """End a pause. Slots up to `at` are not caught up. False if there was no pause.

        Args:
            name: the schedule.
            at: the new cursor, unless the cursor is already further.
            next_slot: its next slot.
            audit_entry: the audit entry.
            held_back: the slots of the pause, for the history.
            only: the pause to end; nothing happens if there is another one by now.
        """
        since = "" if only is None else only.since.isoformat()
        line = "" if held_back is None else to_json(held_back)
        arguments = [
            name,
            since,
            *_cursor(at, next_slot),
            line,
            HISTORY,
            audit_entry.encode(self._store.entry_signatures),
        ]
        return bool(self._store.run("resume_schedule", arguments))

    @contextmanager
    def _leading(self, lead: Lead | None) -> Iterator[Any]:
        """A block of writes that only the leading beat may do."""
        with self._store.redis.pipeline() as pipe:
            if lead is not None:
                pipe.watch(lead.key)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
                if pipe.get(lead.key) != lead.token.encode():
                    raise LeadLost
                pipe.multi()
            yield pipe
            try:
                pipe.execute()
            except WatchError as error:  # the lock has changed meanwhile
                raise LeadLost from error

    def _note(self, pipe: Any, audit_entry: AuditEntry | None) -> None:
        if audit_entry is not None:
            pipe.xadd(self._store.key("journal"), {"deed": audit_entry.encode(self._store.entry_signatures)})

    def _moment(self, reply: Any) -> datetime:
        seconds, micros = reply
        return datetime.fromtimestamp(seconds + micros / 1e6, UTC)

    def _history(self, name: str) -> str:
        return self._store.key("schedule", "history", name)


def _cursor(slot: datetime, next_slot: datetime | None) -> list[Any]:
    return [int(slot.timestamp()), "" if next_slot is None else int(next_slot.timestamp()), meta_of(slot)]
