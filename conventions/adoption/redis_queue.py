"""A queue of plain Celery in Redis: a list for each priority, as kombu's transport keeps it.

A message that is taken lies in a list of its own, `<list>:conventions-drain`, until it is settled: each step is one command of the
server. So a drain that is killed loses nothing, and the next one goes on with that list, once the lock of the killed one has lapsed.
"""

import json
import time
from base64 import b64decode
from binascii import Error as NoBase64
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from redis.exceptions import LockError, ResponseError

from conventions.adoption.old_queue import OldMessage
from conventions.core.errors import ConfigurationError
from conventions.core.priority import Priority
from conventions.core.redis_address import shown
from conventions.storage.redis_store import Store

STEPS = range(10)  # kombu's default has a list for 0, 3, 6 and 9; a team may have chosen others
SEPARATOR = "\x06\x16"  # kombu's, between the name of a queue and the priority of a list
ASIDE = ":conventions-drain"
AT_ONCE = 100  # messages that are taken in one turn
READ_AT_ONCE = 1000
LOCKED_FOR = 30.0  # seconds; it is renewed six times meanwhile


class RedisQueue:
    """See `OldQueue`.

    Args:
        address: of the server, as Celery writes it.
        name: of the queue.
        prefix: Celery's `global_keyprefix`.
    """

    leaves_aside = True

    def __init__(self, address: str, name: str, prefix: str = "") -> None:
        self.place = f"{prefix}{name} at {shown(address)}"
        self._name, self._unacked = name, f"{prefix}unacked"
        self._redis: Any = Store(address, "").redis
        self._lock = self._redis.lock(f"{prefix}{name}{ASIDE}:lock", timeout=LOCKED_FOR, blocking=False)
        self._renewed_at = 0.0
        self._lists = {step: f"{prefix}{name}" + (f"{SEPARATOR}{step}" if step else "") for step in STEPS}

    def count(self) -> int:
        """How many messages wait, also those that a drain has left aside which was killed."""
        lengths = self._redis.pipeline(transaction=False)
        for one in self._lists.values():
            lengths.llen(one)
            lengths.llen(one + ASIDE)
        return sum(lengths.execute())

    def held(self) -> Mapping[str, int]:
        """Those that kombu has put aside for its workers. It notes exchange and routing key of each, and not the queue."""
        found: Counter[str] = Counter()
        try:
            for _, value in self._redis.hscan_iter(self._unacked, count=READ_AT_ONCE):
                with suppress(LookupError, RecursionError, TypeError, ValueError):
                    _, exchange, key = json.loads(value)
                    found[self._name if key == self._name else f"exchange {exchange!r}, routing key {key!r}"] += 1
        except ResponseError:  # of another program
            return {}
        return found

    def look(self) -> Iterator[OldMessage]:
        """It reads all of them."""
        for step, name in self._lists.items():
            for key in (name, name + ASIDE):
                for start in range(0, self._redis.llen(key), READ_AT_ONCE):
                    for value in self._redis.lrange(key, start, start + READ_AT_ONCE - 1):
                        yield _message(value, step, key)

    def _renew(self) -> None:
        """Keep the lock. Raises: ConfigurationError, when this process has stood still for so long that another drain may have it."""
        if time.monotonic() < self._renewed_at + LOCKED_FOR / 6:
            return
        try:
            self._lock.reacquire()
        except LockError:
            raise ConfigurationError(["this drain stood still until its lock had lapsed: start it again"]) from None
        self._renewed_at = time.monotonic()

    def begin(self) -> None:
        """Take the lock."""
        if not self._lock.acquire():
            raise ConfigurationError(
                [f"another drain of this queue runs, or was killed less than {LOCKED_FOR:g} s ago: try again then"]
            )
        self._renewed_at = time.monotonic()

    def take(self) -> Iterator[OldMessage]:
        """Take what waits now, the most urgent list first, its oldest message first."""
        for step, name in self._lists.items():
            aside = name + ASIDE
            left = self._redis.llen(name)  # before what a killed drain has left goes behind it
            for value in reversed(self._redis.lrange(aside, 0, -1)):
                self._renew()
                yield _message(value, step, name)
            while left > 0:
                taking = self._redis.pipeline(transaction=False)
                for _ in range(min(left, AT_ONCE)):
                    taking.rpoplpush(name, aside)
                values = [value for value in taking.execute() if value is not None]
                left = left - AT_ONCE if values else 0
                for value in values:
                    self._renew()
                    yield _message(value, step, name)

    def moved(self, message: OldMessage) -> None:
        """Drop it from where it lies aside."""
        name, value = message.receipt
        self._redis.lrem(name + ASIDE, 1, value)

    def leave(self, message: OldMessage) -> None:
        """Put it behind the messages that wait, all of which are looked at: those that stay keep their order among themselves."""
        name, value = message.receipt
        self._redis.eval(_LEAVE, 2, name + ASIDE, name, value)

    def close(self) -> bool:
        """Put what is not settled back to the front, in its order."""
        owned = bool(self._lock.owned())
        if owned:
            for name in self._lists.values():
                while self._redis.eval(_GIVE_BACK, 2, name + ASIDE, name):
                    pass
            self._lock.release()
        self._redis.close()
        return owned


# Once, also where the answer is lost and the call is made again.
_LEAVE = """\
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 1 then
  redis.call('LPUSH', KEYS[2], ARGV[1])
end
"""
_GIVE_BACK = """\
local value = redis.call('LPOP', KEYS[1])
if value then
  redis.call('RPUSH', KEYS[2], value)
end
return value
"""


def _message(value: bytes, step: int, name: str) -> OldMessage:
    """A message of a list. What is none of Celery's has no task. Step 0 is kombu's most urgent one, and that of a send that names none."""
    try:
        envelope = json.loads(value)
        properties = envelope["properties"]
        body = envelope["body"]
        return OldMessage(
            body=b64decode(body) if properties.get("body_encoding") == "base64" else str(body).encode(),
            headers=dict(envelope["headers"]),
            properties=properties,
            content_type=envelope["content-type"],
            content_encoding=envelope["content-encoding"],
            priority=Priority.LOW if step else Priority.NORMAL,
            receipt=(name, value),
        )
    except (AttributeError, LookupError, NoBase64, RecursionError, TypeError, ValueError):
        return OldMessage(b"", {}, {}, "", "", Priority.NORMAL, (name, value))
