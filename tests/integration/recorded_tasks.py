"""The tasks of the recorded messages: see `test_recorded_messages.py`. Releases of before import this file, too."""

import base64
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from celery import chain, chord, shared_task

from conventions import BatchTask, ImmediateTask, LongRunningTask, Priority, RetryPolicy, acting_as

PREFIX = "recorded"
WAITS = 3600.0  # seconds: nothing that was recorded so runs while it is recorded


def note(task: Any, name: str) -> None:
    """Count an effect."""
    store = task.app.store
    store.redis.hincrby(store.key("effects"), name, 1)


class Note(ImmediateTask):
    """A short job."""

    idempotent_on = ("name",)

    def run(self, name: str) -> str:
        """Count it."""
        note(self, name)
        return name


class Join(ImmediateTask):
    """What follows others, with their results."""

    not_idempotent = "it counts"
    ignore_result = False

    def run(self, names: list[str], name: str) -> str:
        """Count it with how many came."""
        note(self, f"{name}-{len(names)}")
        return name


class Part(ImmediateTask):
    """One of several whose results are wanted."""

    idempotent_on = ("name",)
    ignore_result = False

    def run(self, name: str) -> str:
        """Count it."""
        note(self, name)
        return name


class FailsFirst(ImmediateTask):
    """Fails at its first attempt."""

    idempotent_on = ("name",)
    retry_policy = RetryPolicy(attempts=3, first_wait=WAITS, max_wait=WAITS)

    def run(self, name: str) -> None:
        """Count it at the second attempt."""
        if self.attempt == 1:
            raise ValueError("not yet")
        note(self, f"{name}-{self.attempt}-{self.actor}")


class Held(LongRunningTask):
    """Is in hand when its worker is killed."""

    idempotent_on = ("name",)

    def run(self, name: str) -> None:
        """Wait for the kill; then count."""
        store = self.app.store
        if store.redis.exists(store.key("recording")):
            store.redis.hincrby(store.key("held"), name, 1)
            time.sleep(WAITS)
        note(self, name)


class Items(BatchTask):
    """A batch."""

    idempotent_on = ("batch",)
    chunk_size = 5

    def items(self, batch: str) -> Iterator[int]:
        """Its items."""
        yield from range(12 if batch else 0)

    def process(self, chunk: list[int], batch: str) -> None:
        """Count each."""
        for one in chunk:
            note(self, f"{batch}-{one}")

    def finish(self, summary: Any, batch: str) -> None:
        """Count the end."""
        note(self, f"{batch}-finish-{summary.done}")


class Functions:
    """A function that is a task, which no module may hold by its name: pytest would look into it."""

    @staticmethod
    def register() -> Any:
        """Register it."""

        @shared_task(bind=True, name="recorded.function")
        def function(self: Any, name: str) -> None:
            note(self, name)

        return function


FUNCTION = Functions.register()
NAMES = [
    "plain", "bulk-0", "bulk-1", "delayed", "urgent", "by-name", "linked", "callback", "first", "second", "part-0",
    "part-1", "join-2", "fails-2-u-7", "held", "function", "keyed",
    *(f"batch-{number}" for number in range(12)), "batch-finish-12",
]  # fmt: skip
"""The effects of all of them, each once."""


def send_first(app: Any) -> None:
    """What a worker begins."""
    with acting_as("u-7"):
        FailsFirst.delay(name="fails")
    Held.delay(name="held")


def send_others(app: Any) -> None:
    """What nobody has begun."""
    Note.delay(name="plain")
    Note.enqueue_many([{"name": "bulk-0"}, {"name": "bulk-1"}])
    Note.apply_async(kwargs={"name": "delayed"}, countdown=WAITS)
    Note.apply_async(kwargs={"name": "urgent"}, priority=Priority.URGENT)
    app.send_task(Note.name, kwargs={"name": "by-name"})
    Note.apply_async(kwargs={"name": "linked"}, link=Note.si(name="callback"))
    chain(Note.si(name="first"), Note.si(name="second")).apply_async()
    chord([Part.si(name="part-0"), Part.si(name="part-1")])(Join.s(name="join"))
    FUNCTION.delay(name="function")
    Note.apply_async(kwargs={"name": "keyed"}, idempotency_key="k-1", actor="u-8")
    Items.delay(batch="batch")


KEPT = (
    "claim",
    "delayed",
    "inflight",
    "layout",
    "message",
    "queue",
    "queues",
    "receipts",
    "sequence",
    "started",
    "wake",
)
"""What is recorded: the messages and what belongs to them, and not who lived then."""
READ: dict[bytes, Callable[[Any, bytes], list[bytes]]] = {
    b"string": lambda redis, key: [redis.get(key)],
    b"hash": lambda redis, key: [part for pair in redis.hgetall(key).items() for part in pair],
    b"set": lambda redis, key: [*redis.smembers(key)],
    b"zset": lambda redis, key: [part for name, score in redis.zrange(key, 0, -1, withscores=True) for part in (b"%d" % score, name)],
}  # fmt: skip
WRITE = {"string": "SET", "hash": "HSET", "set": "SADD", "zset": "ZADD"}


def dump(redis: Any) -> list[tuple[str, str, list[str]]]:
    """Keys, what they are and what they hold, in base64; also the size of a chord, which Celery keeps."""
    found = []
    for raw in sorted(redis.scan_iter(count=1000)):
        key, kind = raw.decode(), redis.type(raw)
        if key.startswith("celery-taskset") or key.removeprefix(f"{{{PREFIX}}}:").partition(":")[0] in KEPT:
            values = [base64.b64encode(one).decode() for one in READ[kind](redis, raw)]
            found.append((key, kind.decode(), values))
    return found


def load(redis: Any, recorded: list[tuple[str, str, list[str]]]) -> None:
    """Put all of it into a server as if it had been sent a moment ago, and were due: a message that is older than claims are kept never runs."""
    now = datetime.now(UTC).isoformat().encode()
    for key, kind, values in recorded:
        raw = [base64.b64decode(one) for one in values]
        if ":message:" in key:
            raw = [_SENT.sub(rb"\g<1>" + now + rb"\g<2>", one) for one in raw]
        elif ":delayed:" in key:
            raw[::2] = [b"1"] * (len(raw) // 2)
        elif ":claim:" in key:
            raw[raw.index(b"until") + 1] = b"1"
        redis.execute_command(WRITE[kind], key, *raw)


_SENT = re.compile(rb'("x_enqueued_at": ")[^"]+(")')
