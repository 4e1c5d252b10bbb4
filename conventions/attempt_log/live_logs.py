"""`LiveLogs`: lines of attempts in Redis, while the attempt runs and until they are in SQL."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from conventions.attempt_log.head_and_tail import Changes, joined
from conventions.attempt_log.run_log import RunName
from conventions.core.time_units import count_in, milliseconds
from conventions.storage.redis_store import Store

LIVES = timedelta(
    days=1
)  # after the last line; the recorder moves lines of ended runs within seconds, where SQL answers
SILENT_AFTER = 120.0  # seconds without a sign of life, after which a run is taken for ended: its process was killed
MOST_BYTES = 64 * 1024 * 1024  # of all runs together; further ones are not kept meanwhile
_ENDED, _VERSION = b"ended", b"version"

Answer = Literal["kept", "refused", "gone"]
_ANSWERS: dict[int, Answer] = {1: "kept", 0: "refused", -1: "gone"}


@dataclass(frozen=True, slots=True)
class LiveLog:
    """The lines of one run, as they are in Redis.

    Attributes:
        text: of `joined`.
        left_out: how many lines were left out of it.
        ended: whether the run says that it has ended.
        version: changes with each change; empty where there are no lines.
    """

    name: RunName
    text: str
    left_out: int
    ended: bool
    version: bytes = b""


class LiveLogs:
    """The lines of one application. Each method raises RedisError."""

    def __init__(self, store: Store, most_bytes: int = MOST_BYTES) -> None:
        self._store = store
        self._most_bytes = most_bytes

    def keep(self, name: RunName, changes: Changes, *, again: bool, ended: bool) -> Answer:
        """Store what has changed.

        Args:
            name: of the run.
            changes: what is to be stored; without `again` all that is kept.
            again: whether lines of it were stored before.
            ended: whether it has ended.

        Returns:
            `refused`: other runs have too many bytes. `gone`: what was stored is not there any more.
        """
        arguments: list[str | bytes | int] = [name.message_id, _run(name), "1" if again else "", "1" if ended else ""]
        arguments += [milliseconds(SILENT_AFTER), milliseconds(LIVES), self._most_bytes]
        arguments += [len(changes.dropped), *changes.dropped]
        for number, line in changes.new.items():
            arguments += [number, line]
        return _ANSWERS[self._store.run("keep_log", arguments)]

    def of(self, message_id: str) -> list[LiveLog]:
        """All lines of one message."""
        redis: Any = self._store.redis
        runs = sorted(redis.smembers(self._store.key("logs_of", message_id)))
        names = [_name_of(b"%b:%b" % (run, message_id.encode(errors="surrogatepass"))) for run in runs]
        return [one for one in self._read([name for name in names if name]) if one.version]

    def due(self, most: int) -> list[LiveLog]:
        """Runs that have ended, or are silent, the oldest first. One without lines has expired."""
        redis: Any = self._store.redis
        seconds, micros = redis.time()
        found = redis.zrangebyscore(self._store.key("logs"), "-inf", seconds * 1000 + micros // 1000, start=0, num=most)
        names = {member: _name_of(member) for member in found}
        if odd := [member for member, name in names.items() if name is None]:  # of another program
            redis.zrem(self._store.key("logs"), *odd)
        return self._read([name for name in names.values() if name])

    def drop(self, logs: Iterable[LiveLog]) -> int:
        """Forget those that are in SQL, and have not changed since they were read. Returns how many."""
        arguments = [part for one in logs for part in (one.name.message_id, _run(one.name), one.version)]
        return int(self._store.run("drop_logs", arguments)) if arguments else 0

    def _read(self, names: Sequence[RunName]) -> list[LiveLog]:
        redis: Any = self._store.redis
        with redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(self._store.key("log", name.message_id, _run(name)))
            found: list[dict[bytes, bytes]] = pipe.execute()
        return [_log(name, fields) for name, fields in zip(names, found, strict=True)]


def _log(name: RunName, fields: dict[bytes, bytes]) -> LiveLog:
    version, ended = fields.pop(_VERSION, b""), _ENDED in fields
    fields.pop(_ENDED, None)
    text, left_out = joined((count_in(number), line) for number, line in fields.items())
    return LiveLog(name, text, left_out, ended, version)


def _run(name: RunName) -> str:
    """A run among those of its message."""
    return f"{name.generation}:{name.attempt}:{name.token.replace(':', '_')}"


def _name_of(member: bytes) -> RunName | None:
    """`None`: it is not of ours."""
    try:
        generation, attempt, token, message_id = member.decode(errors="surrogatepass").split(":", 3)
        return RunName(message_id, int(generation), int(attempt), token)
    except ValueError:
        return None
