"""`Beats`: which beats run, and when each last looked at the schedule, so that a stuck one can be seen."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from conventions.core.time_units import milliseconds
from conventions.storage.redis_store import Store

SILENT_AFTER = 15.0  # seconds; with any lease, a beat looks every 5 s, and a dead leader's lock has expired by then
FORGET_AFTER = timedelta(minutes=10)  # how long a dead beat stays in the list, while others tick
KEEP = timedelta(days=30)  # how long the list is kept after the last tick


@dataclass(frozen=True, slots=True)
class Beat:
    """One process of `celery beat`. Times are aware, by the server's clock.

    Attributes:
        name: its host and process id.
        leads: whether it led at its last tick.
        since: its first tick, soon after its start.
        tick_at: its last tick.
        tick_age: seconds since its last tick.
    """

    name: str
    leads: bool
    since: datetime
    tick_at: datetime
    tick_age: float

    @property
    def silent(self) -> bool:
        """Whether it is stuck, or has died."""
        return self.tick_age > SILENT_AFTER

    @property
    def state(self) -> str:
        """`leads`, `stands by` or `silent`."""
        return "silent" if self.silent else "leads" if self.leads else "stands by"


class Beats:
    """The beats of one application."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key = store.key("beats")

    def tick(self, name: str, *, leads: bool) -> None:
        """Note that a beat has looked at the schedule."""
        limits = [milliseconds(one) for one in (FORGET_AFTER, KEEP)]
        self._store.script("beat_tick")(keys=[self._key], args=[name, int(leads), *limits])

    def leave(self, name: str) -> None:
        """Remove a beat that ends in order."""
        self._store.redis.hdel(self._key, name)

    def listing(self) -> list[Beat]:
        """The beats: leaders first, then the latest tick first."""
        with self._store.redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._key)
            pipe.time()
            found, (seconds, micros) = pipe.execute()
        now = seconds + micros / 1e6
        # A later release may write another form. Such an entry is not shown, and not removed.
        beats = [
            _beat(name.decode(errors="backslashreplace"), match, now)
            for name, raw in found.items()
            if (match := _TICK.fullmatch(raw))
        ]
        return sorted(beats, key=lambda beat: (beat.silent, not beat.leads, beat.tick_age))


_TICK = re.compile(rb"([01]):(\d{1,15}):(\d{1,15})")  # leads, last tick, first tick


def _beat(name: str, match: re.Match[bytes], now: float) -> Beat:
    leads, tick, since = match.groups()
    first, last = (datetime.fromtimestamp(int(one) / 1000, UTC) for one in (since, tick))
    return Beat(name, leads == b"1", first, last, max(0.0, now - int(tick) / 1000))


def beats_fault(beats: Sequence[Beat], app: str | None = None) -> str | None:
    """What is wrong with an application's beats, for people. `None` when one of them leads. `app`: as for `celery -A`."""
    if any(beat.leads and not beat.silent for beat in beats):
        return None
    if any(not beat.silent for beat in beats):
        return "no beat leads now: the lock of the last one has not lapsed, or those that run have no schedule"
    command = f"`celery {f'-A {app} ' if app else ''}beat`"
    if not beats:
        return f"no beat runs, so nothing is sent: start one with {command}"
    last = beats[0]
    return f"no beat looks at the schedule, so nothing is sent: {last.name} is stuck or gone for {last.tick_age:.0f} s; start {command}"
