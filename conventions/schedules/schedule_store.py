"""`Schedules`: what Redis knows of each schedule: its cursor, its pause and what became of its slots. No Celery.

The *cursor* is the latest slot that was sent or given up, or the moment from which slots count. It lies in the hash that
RedBeat keeps for an entry, beside RedBeat's own fields; `storage/lua/schedule.lua` names them all. These keys live as long as the
schedule does. A pause lives until it is lifted, and the history for a month, so that both survive a deploy that removes
the schedule and one that brings it back.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from redis.exceptions import RedisError, WatchError

from conventions.core.errors import BrokerUnavailable
from conventions.core.units import milliseconds
from conventions.records.audit_entry import AuditEntry
from conventions.schedules.schedule_state import Begun, Lead, LeadLost, Pause, Run, State, meta_of, to_json
from conventions.storage.redis_store import Store

HISTORY = 1000  # lines kept of each schedule
KEEP_HISTORY = timedelta(days=30)  # of a schedule that is gone
MAY_ARRIVE = timedelta(minutes=1)  # in which a message that a broker did not answer to may be there all the same
BACK_WITHIN = timedelta(minutes=10)  # after which one that comes back is a new one


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
        """The server's clock, which is the same for every beat."""
        return self._moment(self._store.redis.time())

    def names(self) -> set[str]:
        """The schedules that the beat that leads knows."""
        found: Any = self._store.redis.smembers(self._statics)
        return {name.decode() for name in found}

    def read(self, names: Iterable[str], *, definitions: bool = False) -> tuple[datetime, dict[str, State]]:
        """The server's clock, and the state of each schedule, in one round trip; `definitions`: with what beat has read."""
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
        following: datetime | None,
        *,
        deed: AuditEntry | None = None,
        lead: Lead | None = None,
    ) -> None:
        """Write what a file says of a schedule; its cursor only where there is none.

        Args:
            name: the schedule.
            definition: for RedBeat's readers and for people.
            cursor: the moment from which the slots of a new one count.
            following: its next slot.
            deed: where something is new or changed.
            lead: that of the beat that writes.

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
            if following is None:
                pipe.zrem(self._index, key)
            else:
                pipe.zadd(self._index, {key: int(following.timestamp())})
            pipe.sadd(self._statics, name)
            pipe.persist(self._history(name))
            self._note(pipe, deed)

    def forget(self, name: str, deed: AuditEntry | None = None, lead: Lead | None = None) -> None:
        """Drop a schedule that is no longer in the list; its pause stays, its history for a month, its cursor for minutes.

        Raises:
            LeadLost: another beat leads.
        """
        with self._leading(lead) as pipe:
            pipe.zrem(self._index, self.key(name))
            pipe.hset(self.key(name), "gone", "1")
            pipe.expire(self.key(name), BACK_WITHIN)
            pipe.expire(self._history(name), KEEP_HISTORY)
            pipe.srem(self._statics, name)
            self._note(pipe, deed)

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
        deed: AuditEntry | None = None,
    ) -> Begun:
        """Ask whether a slot, or a run by hand, is to be sent now; if so it counts as one that may be under way.

        Args:
            name: the schedule.
            message_id: of the run.
            keep: how long the run is remembered if its end is never told.
            overlap: `skip` where no other run may be there; `beside` for one that may all the same.
            here: whether messages are on this server.
            slot: the planned time; `None` by hand.
            lead: that of the beat that asks, which is kept for longer; needed for a slot.
            deed: of who runs it by hand; in the journal from then on.

        Raises:
            LeadLost: another beat leads.
        """
        number = "" if slot is None else str(int(slot.timestamp()))
        lock = ("", "", 0) if lead is None else (lead.key, lead.token, milliseconds(lead.seconds))
        arguments = [name, message_id, number, *lock, overlap, int(here), milliseconds(keep)]
        arguments.append("" if deed is None else deed.encode())
        answer, *more = self._store.run("begin_slot", arguments)
        if answer == b"lost":
            raise LeadLost
        if answer == b"go":
            return Begun(since=datetime.fromtimestamp(int(more[0]) / 1000, UTC))
        return Begun(live_id=more[0].decode() if more else None)

    @contextmanager
    def sending(self, message_id: str, *, overlap: str, here: bool) -> Iterator[None]:
        """Send a run that was begun within the block; one that was not sent is not waited for.

        One that a broker elsewhere did not answer to may arrive there all the same: it is waited for a minute.
        """
        mark = self._store.key("live", message_id)
        try:
            yield
        except Exception as error:
            if overlap != "allow" and not here and isinstance(error, BrokerUnavailable):
                with suppress(RedisError):
                    self._store.redis.pexpire(mark, MAY_ARRIVE)
            elif overlap != "allow":
                with suppress(RedisError):  # its message stands for it where that is there after all
                    self._store.redis.delete(mark)
            raise
        if overlap != "allow" and here:  # from now on its message stands for it
            with suppress(RedisError):
                self._store.redis.delete(mark)

    def advance(self, name: str, slot: datetime, following: datetime | None, *lines: Run) -> bool:
        """Move the cursor to `slot` unless it is there or further; False then.

        Args:
            name: the schedule.
            slot: the new cursor; fractions of a second are cut.
            following: the next slot, which RedBeat's index of due times shows.
            lines: what became of slots, remembered with it, the oldest first.
        """
        last = next((to_json(one) for one in reversed(lines) if one.what == "sent"), "")
        arguments = [name, *_cursor(slot, following), last, HISTORY, *map(to_json, lines)]
        return bool(self._store.run("advance", arguments))

    def note_look(self, at: datetime) -> None:
        """Say that every schedule was looked at, and what was due at that time was done."""
        self._store.script("looked")(keys=[self._looked], args=[at.timestamp(), int(KEEP_HISTORY.total_seconds())])

    def looked_at(self) -> datetime | None:
        """When that was last; `None` when it is not known any more."""
        found: Any = self._store.redis.get(self._looked)
        return None if found is None else datetime.fromtimestamp(float(found), UTC)

    def note_fault(self, name: str, fault: str | None) -> None:
        """Say why a slot could not be sent, or that nothing is wrong any more, as each slot that is sent does."""
        if fault is None:
            self._store.redis.hdel(self.key(name), "fault")
        else:
            self._store.redis.hset(self.key(name), "fault", fault)

    def record(self, name: str, run: Run) -> None:
        """Remember a run that was sent by hand."""
        with self._store.redis.pipeline() as pipe:
            pipe.lpush(self._history(name), to_json(run))
            pipe.ltrim(self._history(name), 0, HISTORY - 1)
            pipe.hset(self.key(name), "last", to_json(run))
            pipe.execute()

    def history(self, name: str, limit: int) -> list[Run]:
        """The lines of a schedule's history, the newest first."""
        return self.histories([name], limit)[name]

    def histories(self, names: Iterable[str], limit: int) -> dict[str, list[Run]]:
        """The same of several schedules, in one round trip."""
        names = list(names)
        with self._store.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.lrange(self._history(name), 0, limit - 1)
            found = pipe.execute()
        return {name: [Run.read(one) for one in raw] for name, raw in zip(names, found, strict=True)}

    def pause(self, name: str, pause: Pause, deed: AuditEntry) -> None:
        """Send nothing for this schedule until it is lifted; one that is there already is replaced."""
        self._store.run("pause_schedule", [name, to_json(pause), deed.encode()])

    def resume(
        self,
        name: str,
        at: datetime,
        following: datetime | None,
        deed: AuditEntry,
        *,
        held_back: Run | None = None,
        only: Pause | None = None,
    ) -> bool:
        """Lift a pause; slots up to `at` are not caught up. False when there was none.

        Args:
            name: the schedule.
            at: the new cursor, unless that is further.
            following: its next slot.
            deed: who does it.
            held_back: the slots that the pause held back, for the history.
            only: the pause that is meant; nothing is done where there is another by now.
        """
        since = "" if only is None else only.since.isoformat()
        line = "" if held_back is None else to_json(held_back)
        arguments = [name, since, *_cursor(at, following), line, HISTORY, deed.encode()]
        return bool(self._store.run("resume_schedule", arguments))

    @contextmanager
    def _leading(self, lead: Lead | None) -> Iterator[Any]:
        """Write within the block what only the beat that leads may write."""
        with self._store.redis.pipeline() as pipe:
            if lead is not None:
                pipe.watch(lead.key)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
                if pipe.get(lead.key) != lead.token.encode():
                    raise LeadLost
                pipe.multi()
            yield pipe
            try:
                pipe.execute()
            except WatchError as error:  # the lock has lapsed meanwhile
                raise LeadLost from error

    def _note(self, pipe: Any, deed: AuditEntry | None) -> None:
        if deed is not None:
            pipe.xadd(self._store.key("journal"), {"deed": deed.encode()})

    def _moment(self, reply: Any) -> datetime:
        seconds, micros = reply
        return datetime.fromtimestamp(seconds + micros / 1e6, UTC)

    def _history(self, name: str) -> str:
        return self._store.key("schedule", "history", name)


def _cursor(slot: datetime, following: datetime | None) -> list[Any]:
    return [int(slot.timestamp()), "" if following is None else int(following.timestamp()), meta_of(slot)]
