"""`Counts`: reads what was counted: since the beginning, by minute for two hours, and the causes of failures."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from conventions.core.time_units import count_in
from conventions.metrics.event_sums import MINUTE
from conventions.metrics.series import Series
from conventions.storage.redis_store import Store

KEPT_MINUTES = 120
START = b"0-0"  # before the first entry of a journal
BETWEEN = "\x1f"  # separates a task and its queue, and a fingerprint and a queue
ENDED = ("succeeded", "retried", "dead")  # kinds of which a known series says 0


@dataclass(frozen=True, slots=True)
class CauseNow:
    """Failures with one cause that happened within the last two hours, or whose messages still wait to be tried again.

    Attributes:
        retrying: messages that failed by it last, and have not ended.
        retried, dead: attempts that failed by it: those that are tried again, and those that were the last.
        since, last: seconds since the epoch, of the first and of the latest failure. Two quiet hours end an episode.
        example: id of the latest message.
        workers, releases: failures by worker, and by release.
    """

    fingerprint: str
    task: str
    queue: str
    error: str
    message: str
    retrying: int
    retried: int
    dead: int
    since: float
    last: float
    example: str
    workers: Mapping[str, int]
    releases: Mapping[str, int]


class Failed(NamedTuple):
    """Attempts that failed by one cause: by its fingerprint, and `retried` or `dead`."""

    fingerprint: str
    kind: str


class Counts:
    """What was counted of one application. Each method raises RedisError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def totals(self) -> dict[Series, dict[str, int]]:
        """The counts of each series by name, since the beginning; in the order in which the series were first counted."""
        redis: Any = self._store.redis
        with redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(self._key("series"))
            pipe.hgetall(self._key("total"))
            series, counts = pipe.execute()
        known = _numbered(series)
        order = {one: count_in(number) or len(known) for number, one in known.items()}  # those of no number came last
        found = _by_series(known, counts)
        return dict(sorted(found.items(), key=lambda one: order[one[0]]))

    def minutes(self, first: int, last: int) -> dict[int, dict[Series, dict[str, int]]]:
        """The same of each minute since the epoch from `first` to `last`, both included; those without events are missing."""
        redis: Any = self._store.redis
        with redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(self._key("series"))
            for minute in range(first, last + 1):
                pipe.hgetall(self._key("minute", str(minute)))
            series, *minutes = pipe.execute()
        known = _numbered(series)
        return {first + index: _by_series(known, counts) for index, counts in enumerate(minutes) if counts}

    def failed(self, first: int, last: int) -> dict[int, dict[Failed, int]]:
        """How many attempts failed by which cause in each minute since the epoch, both included; those without failures are missing."""
        redis: Any = self._store.redis
        with redis.pipeline(transaction=False) as pipe:
            for minute in range(first, last + 1):
                pipe.hgetall(self._key("failed", str(minute)))
            found = pipe.execute()
        return {
            first + index: {_failed(name): count_in(count) for name, count in counts.items()}
            for index, counts in enumerate(found)
            if counts
        }

    def this_minute(self) -> int:
        """The present minute since the epoch, by the server's clock."""
        return self.milliseconds() // MINUTE

    def milliseconds(self) -> int:
        """The server's clock, in ms since the epoch."""
        redis: Any = self._store.redis
        seconds, micros = redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def lag(self) -> tuple[int, float]:
        """How many events are not counted yet, 1,000 at the most, and for how many seconds the oldest of them has waited."""
        redis: Any = self._store.redis
        last = redis.get(self._key("last")) or START
        found = redis.xrange(self._store.key("journal"), b"(" + last, count=1000)
        if not found:
            return 0, 0.0
        return len(found), max(0.0, self.milliseconds() / 1000 - int(found[0][0].partition(b"-")[0]) / 1000)

    def retrying(self) -> dict[str, int]:
        """How many messages have failed and will be tried again, by queue."""
        redis: Any = self._store.redis
        found = redis.hgetall(self._store.key("retrying", "queues"))
        return {name.decode(errors="replace"): count_in(count) for name, count in found.items()}

    def releases(self) -> dict[str, float]:
        """The releases of which attempts were counted, and when the first of each ended, in seconds since the epoch."""
        redis: Any = self._store.redis
        return {
            name.decode(errors="replace"): count_in(at) / 1000
            for name, at in redis.hgetall(self._store.key("releases")).items()
        }

    def causes(self, limit: int = 1000) -> list[CauseNow]:
        """The causes, those with the most messages that are tried again first, then by the time of the latest failure."""
        redis: Any = self._store.redis
        names = [name.decode(errors="replace") for name in redis.zrevrange(self._store.key("causes"), 0, -1)]
        with redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._store.key("retrying", "causes"))
            for name in names:
                pipe.hgetall(self._store.key("cause", name))
            retrying, *found = pipe.execute()
        causes = [
            _cause(name, fields, count_in(retrying.get(name.encode(), b"0")))
            for name, fields in zip(names, found, strict=True)
            if b"error" in fields
        ]
        return sorted(causes, key=lambda one: (-one.retrying, -one.last))[:limit]

    def _key(self, *parts: str) -> str:
        return self._store.key("counts", *parts)


def _numbered(series: Mapping[bytes, bytes]) -> dict[bytes, Series]:
    known = {b"0": Series("", "")}
    for name, number in series.items():
        task, _, queue = name.decode(errors="replace").partition(BETWEEN)
        known[number] = Series(task, queue)
    return known


def _failed(name: bytes) -> Failed:
    fingerprint, _, kind = name.decode(errors="replace").rpartition(" ")
    return Failed(fingerprint, kind)


def _by_series(known: Mapping[bytes, Series], counts: Mapping[bytes, bytes]) -> dict[Series, dict[str, int]]:
    found: dict[Series, dict[str, int]] = {}
    for field, count in counts.items():
        number, _, name = field.partition(b":")
        if number in known:
            found.setdefault(known[number], {})[name.decode(errors="replace")] = count_in(count)
    return found


def _cause(fingerprint: str, fields: Mapping[bytes, bytes], retrying: int) -> CauseNow:
    def text(name: str) -> str:
        return fields.get(name.encode(), b"").decode(errors="replace")

    def number(name: str) -> int:
        return count_in(fields.get(name.encode(), b"0"))

    return CauseNow(
        fingerprint, text("task"), text("queue"), text("error"), text("message"),
        retrying, number("retried"), number("dead"), number("first") / 1000, number("last") / 1000,
        text("example"), dict(_by(fields, b"worker ")), dict(_by(fields, b"release ")),
    )  # fmt: skip


def _by(fields: Mapping[bytes, bytes], word: bytes) -> Iterable[tuple[str, int]]:
    found = [
        (name.removeprefix(word).decode(errors="replace"), count_in(count))
        for name, count in fields.items()
        if name.startswith(word)
    ]
    return sorted(found, key=lambda one: (-one[1], one[0]))
