"""`Schedules`: what Redis knows of each schedule: its cursor, its pause and its runs. No Celery.

The *cursor* is the latest slot that was sent, or the moment from which slots count. It lies in the hash that RedBeat
keeps for an entry, beside RedBeat's own fields. These keys live as long as the schedule does; a pause lives until it is
lifted, so that it survives a deploy that removes and adds the schedule.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self

from conventions.store import Store

HISTORY = 1000  # runs remembered for each schedule


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a schedule does not run. `since` is aware, in UTC."""

    reason: str
    actor: str
    since: datetime

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """From its JSON."""
        fields = json.loads(raw)
        return cls(**fields | {"since": datetime.fromisoformat(fields["since"])})


@dataclass(frozen=True, slots=True)
class Run:
    """One message of a schedule. `planned_at` is its slot, `None` when sent by hand; times are aware, in UTC."""

    planned_at: datetime | None
    sent_at: datetime
    id: str
    actor: str

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """From its JSON."""
        fields = json.loads(raw)
        planned = fields["planned_at"] and datetime.fromisoformat(fields["planned_at"])
        return cls(**fields | {"planned_at": planned, "sent_at": datetime.fromisoformat(fields["sent_at"])})


@dataclass(frozen=True, slots=True)
class State:
    """What is known of one schedule; the cursor is `None` before a beat has seen it."""

    cursor: datetime | None
    pause: Pause | None
    last_run: Run | None


class Schedules:
    """The state of an application's schedules, read and changed by beat, the command line and the console."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.prefix = store.key("redbeat", "")  # RedBeat's key prefix
        self._paused = store.key("schedule", "paused")

    def key(self, name: str) -> str:
        """The hash of one schedule."""
        return self.prefix + name

    def now(self) -> datetime:
        """The server's clock, which is the same for every beat."""
        return self._moment(self._store.redis.time())

    def read(self, names: Iterable[str]) -> tuple[datetime, dict[str, State]]:
        """The server's clock, and the state of each schedule, in one round trip."""
        names = list(names)
        with self._store.redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(self._paused)
            for name in names:
                pipe.hget(self.key(name), "cursor")
                pipe.lindex(self._history(name), 0)
            time, paused, *rest = pipe.execute()
        found = {}
        for name, cursor, run in zip(names, rest[::2], rest[1::2], strict=True):
            pause = paused.get(name.encode())
            found[name] = State(
                cursor=None if cursor is None else datetime.fromtimestamp(int(cursor), UTC),
                pause=None if pause is None else Pause.read(pause),
                last_run=None if run is None else Run.read(run),
            )
        return self._moment(time), found

    def advance(self, name: str, slot: datetime, following: datetime | None, run: Run | None = None) -> bool:
        """Move the cursor to `slot` unless it is there or further; False then.

        Args:
            name: the schedule.
            slot: the new cursor; fractions of a second are cut.
            following: the next slot, which RedBeat's index of due times shows.
            run: the message that was sent for the slot, remembered with it.
        """
        moved = self._store.script("advance")(
            keys=[self.key(name), f"{self.prefix}:schedule", self._history(name)],
            args=[
                int(slot.timestamp()),
                "" if following is None else int(following.timestamp()),
                meta_of(slot),
                "" if run is None else _json(run),
                HISTORY,
            ],
        )
        return bool(moved)

    def record(self, name: str, run: Run) -> None:
        """Remember a run that was sent by hand."""
        with self._store.redis.pipeline() as pipe:
            pipe.lpush(self._history(name), _json(run))
            pipe.ltrim(self._history(name), 0, HISTORY - 1)
            pipe.execute()

    def history(self, name: str, limit: int) -> list[Run]:
        """The runs of a schedule, the newest first."""
        raw: Any = self._store.redis.lrange(self._history(name), 0, limit - 1)
        return [Run.read(one) for one in raw]

    def pause(self, name: str, reason: str, actor: str) -> None:
        """Send nothing for this schedule until `resume`."""
        self._store.redis.hset(self._paused, name, _json(Pause(reason, actor, self.now())))

    def resume(self, name: str, following: datetime | None) -> bool:
        """Lift a pause; the slots that passed during it are not caught up. False when there was none.

        Args:
            name: the schedule.
            following: its next slot.
        """
        if not self._store.redis.hexists(self._paused, name):
            return False
        self.advance(name, self.now(), following)  # first, so that no beat sees an old cursor without the pause
        return bool(self._store.redis.hdel(self._paused, name))

    def forget(self, name: str) -> None:
        """Drop a schedule that is no longer in the list; its pause stays."""
        with self._store.redis.pipeline() as pipe:
            pipe.zrem(f"{self.prefix}:schedule", self.key(name))
            pipe.delete(self.key(name), self._history(name))
            pipe.execute()

    def _moment(self, reply: Any) -> datetime:
        seconds, micros = reply
        return datetime.fromtimestamp(seconds + micros / 1e6, UTC)

    def _history(self, name: str) -> str:
        return self._store.key("schedule", "history", name)


def meta_of(slot: datetime) -> str:
    """RedBeat's `meta` field, in its own JSON form."""
    moment = slot.astimezone(UTC)
    parts = {part: getattr(moment, part) for part in ("year", "month", "day", "hour", "minute", "second")}
    return json.dumps({"last_run_at": {"__type__": "datetime", **parts, "microsecond": 0, "timezone": "UTC"}})


def _json(value: Any) -> str:
    return json.dumps(asdict(value), default=datetime.isoformat, ensure_ascii=False)
