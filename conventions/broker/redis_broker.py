"""`Broker`: messages in Redis, each in exactly one of three places: ready, delayed, in flight.

Only the scripts move a message. The holder of a message has a receipt, a new one for each delivery; a stale receipt
changes nothing. All deadlines and due times use the server's clock. `docs/design/messages.md` draws the states.
"""

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from secrets import token_hex
from typing import Any, Literal, NamedTuple, TypeAlias

from redis.exceptions import RedisError, ResponseError

from conventions.broker.delivery import Delivery, ReadRequest, brought
from conventions.broker.queue_level import QueueLevel, levels_in
from conventions.core.chunking import batched
from conventions.core.deadline import current_deadline
from conventions.core.errors import BrokerUnavailable
from conventions.core.lease_timings import USUAL
from conventions.core.redis_answers import advice_on
from conventions.core.time_units import milliseconds
from conventions.storage.layout_version import LAYOUT, LOWEST, SAY_EVERY, member_name, refused
from conventions.storage.redis_store import Store
from conventions.storage.script_call import ScriptCall

SWEEP_LIMIT = 1000  # messages that one call of the sweep moves in each queue
RUN = 1000  # messages in one run of `publish`, since Lua's stack is limited
AT_ONCE = 500  # messages in one call of the other scripts

HeartbeatAnswer: TypeAlias = Literal["held", "lost", "lapsed"]
Place: TypeAlias = Literal["waiting", "running"]
HeldBack: TypeAlias = Literal["limited", "paused"]
CancelAnswer: TypeAlias = Literal["queued", "running", "too late"]


class Publication(NamedTuple):
    """A message to be sent.

    Attributes:
        tag: names the message. Sending the same message again while it is there changes nothing.
        payload: the message as kombu writes it, JSON.
        priority: 0 to 9, 9 first.
        wait: seconds until it is due.
        digest: what the message asks for. Another message may have the same id, for example after `self.replace`.
        generation: how often it was redriven.
        lifetime: seconds after which nobody will read it any more, or 0.
    """

    tag: str
    queue: str
    payload: str
    priority: int
    wait: float = 0.0
    digest: str = ""
    generation: int = 0
    lifetime: float = 0.0


class HeldMessage(NamedTuple):
    """The data that a process needs to act on a message that it holds.

    Attributes:
        claim: empty until its job has started.
        token: empty until its job has started.
        followed_id: the message's id if a step follows its job; the acknowledgement notes it.
    """

    tag: str | bytes
    queue: str
    receipt: str
    claim: str = ""
    token: str = ""
    followed_id: str = ""

    @classmethod
    def of(cls, delivery: Mapping[str, Any]) -> "HeldMessage":
        """The message of a delivery, as the transport describes it in the message's properties."""
        return cls(delivery["tag"], delivery["queue"], delivery["receipt"])


class Swept(NamedTuple):
    """The result of a sweep.

    Attributes:
        recovered: messages of dead workers that were made ready, at least.
        found: messages that a worker held, although the server had lost their in-flight entry.
        lost: messages that were in flight and are gone from the server. Each has an event.
    """

    recovered: int
    found: int
    lost: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """The number of messages of one queue, by place."""

    ready: int
    delayed: int
    in_flight: int


class Broker:
    """The messages of one application.

    Args:
        store: the Redis that holds them.
        journal_limit: sends are refused while this many events wait in the journal.
        visibility: seconds without a heartbeat until a message goes to another worker.
    """

    def __init__(self, store: Store, *, journal_limit: int, visibility: float = USUAL.visibility) -> None:
        self.store = store
        self.journal_limit = journal_limit
        self._visibility = milliseconds(visibility)
        self._says = (0, 0.0)  # the process that sends, and when it reports itself again

    def _run(self, script: str, arguments: Sequence[Any]) -> Any:
        try:
            return self.store.run(script, arguments)
        except ResponseError as error:
            if newer := refused(error):
                raise newer from error
            raise

    def publish(self, publications: Sequence[Publication]) -> list[str]:
        """Send messages in one round trip. Returns their tags; the tag is empty for a message that is already there.

        Raises:
            BrokerUnavailable: Redis accepts no messages now: it or its journal is full, it is a replica, or the like.
            RedisError: it does not answer.
            NewerLayout: a later release has written its data.
        """
        call = self.ask_publish(publications)
        try:
            return self.published(call)
        finally:
            call.close()

    def ask_publish(self, publications: Sequence[Publication]) -> ScriptCall:
        """Send messages; `published` reads the answer later. The caller closes the call. Raises: RedisError."""
        return self.store.call("publish", self._publish_arguments(publications))

    @staticmethod
    def published(call: ScriptCall) -> list[str]:
        """The answer of `ask_publish`, as `publish` returns it. Raises: RedisError, BrokerUnavailable, NewerLayout."""
        try:
            return [tag.decode() for tag in call.answer()]
        except RedisError as error:
            if call.may_have_run and (deadline := current_deadline()) is not None:
                deadline.may_have_left = True
            if newer := refused(error):
                raise newer from error
            if advice := advice_on(error):
                raise BrokerUnavailable(f"Redis takes no messages now: {error}; {advice}") from error
            raise

    def _sender(self) -> str:
        """The entry of this process for the registry of living processes; empty within `SAY_EVERY` of its last report."""
        now, process = time.monotonic(), os.getpid()
        if (process, now) < self._says:
            return ""
        self._says = (process, now + SAY_EVERY)
        return f" {LOWEST}:{LAYOUT} {member_name('sender')}"

    def _publish_arguments(self, publications: Sequence[Publication]) -> list[Any]:
        arguments: list[Any] = [self.journal_limit, f"~{token_hex(4)}{self._sender()}"]
        if len(publications) == 1:  # the usual case, without grouping
            (one,) = publications
            return [*arguments, *_in_common(one), 1, one.tag, one.payload, one.digest]
        for common, run in groupby(publications, _in_common):
            for part in batched(run, RUN):
                arguments += (*common, len(part))
                for one in part:
                    arguments += (one.tag, one.payload, one.digest)
        return arguments

    def reserve(self, queues: Sequence[str], count: int) -> list[Delivery]:
        """Take up to `count` ready messages, without waiting."""
        return brought(self._run("reserve", ReadRequest(queues, count).arguments(self._visibility)))[1]

    def reserve_command(self, wanted: ReadRequest) -> list[Any]:
        """The command of `reserve`, for a connection that reads the answer later."""
        script = self.store.script("reserve")
        return ["EVALSHA", script.sha, 1, self.store.key(""), *wanted.arguments(self._visibility)]

    def wait_command(self, queues: Sequence[str], seconds: float) -> list[Any]:
        """The command that waits until one of the queues may have a message."""
        return ["BZPOPMIN", *(self.store.key("wake", queue) for queue in queues), f"{max(seconds, 0.001):.3f}"]

    def load_scripts(self) -> None:
        """Load the script of `reserve` into a server that has restarted."""
        self.store.redis.script_load(self.store.script("reserve").script)

    def wake(self, queues: Sequence[str], *, lifetime: float = 0.0) -> None:
        """Wake an idle worker for each of these queues. `lifetime`, in seconds, is for a queue with only one reader."""
        with self.store.redis.pipeline(transaction=lifetime > 0) as pipe:
            for queue in queues:
                pipe.zadd(self.store.key("wake", queue), {"1": 0})
                if lifetime:
                    pipe.pexpire(self.store.key("wake", queue), milliseconds(lifetime))
            pipe.execute()

    def acknowledge(self, messages: Sequence[HeldMessage]) -> int:
        """Remove finished messages. Returns how many this process still held."""
        parts = ((one.tag, one.queue, one.receipt, one.claim, one.followed_id) for one in messages)
        return sum(int(self._run("acknowledge", arguments)) for arguments in _batches(parts))

    def heartbeat(self, messages: Sequence[HeldMessage]) -> list[HeartbeatAnswer]:
        """Renew our hold on messages. Each answer says whether we hold it, have lost it, or its lease has expired."""
        parts = ((one.tag, one.queue, one.receipt, one.claim, one.token) for one in messages)
        replies = [self._run("heartbeat", [self._visibility, *arguments]) for arguments in _batches(parts)]
        return [answer.decode() for reply in replies for answer in reply]

    def give_back(
        self, messages: Sequence[HeldMessage], *, wait: float = 0.0, counted: bool = False, why: str = ""
    ) -> int:
        """Return messages to the front of their queues and release their claims. Returns how many we still held.

        Args:
            messages: the messages to return.
            wait: seconds until they may be delivered again.
            counted: whether their starts count as starts without an outcome, as after the death of a process.
            why: what is known of that death.
        """
        parts = (
            (one.tag, one.queue, one.receipt, milliseconds(wait), int(counted), one.claim, one.token, why)
            for one in messages
        )
        return sum(int(self._run("give_back", arguments)) for arguments in _batches(parts))

    def put_off(self, message: HeldMessage, wait: float, changes: Mapping[str, Any], task: str) -> None:
        """Delay a message that this worker cannot run, since it does not know its task or the key that signed it. No start is counted.

        Args:
            message: a held message.
            wait: seconds.
            changes: all headers that differ from the sent ones.
            task: the name of an unknown task; empty where it is the key.
        """
        one = (message.tag, message.queue, message.receipt)
        self._run("put_off", [*one, milliseconds(wait), json.dumps(changes), task])

    def leave(self, messages: Sequence[HeldMessage]) -> int:
        """Leave messages in place that a later release has written. Returns how many we still held."""
        parts = ((one.tag, one.queue, one.receipt) for one in messages)
        return sum(int(self._run("leave_unknown_form", arguments)) for arguments in _batches(parts))

    def hold_back(self, messages: Sequence[HeldMessage], *, task: str, period: float, why: HeldBack = "limited") -> int:
        """Return messages that wait for the rate limit of their task, or its pause; see `let_through`. Returns how many we still held.

        Args:
            messages: the messages to return.
            task: their task.
            period: seconds between two jobs of a task with a limit; of a paused one, seconds until they are due all the same.
            why: they wait.
        """
        parts = ((one.tag, one.queue, one.receipt, task, milliseconds(period), why) for one in messages)
        return sum(int(self._run("hold_back", arguments)) for arguments in _batches(parts))

    def let_through(self, task: str, most: int, why: HeldBack = "limited") -> int:
        """Make up to `most` held-back messages ready, oldest first. Returns how many are left."""
        left = most
        while most > 0 and left > 0:
            ready, left = map(int, self._run("let_through", [why, task, min(most, SWEEP_LIMIT)]))
            most -= max(ready, 1)
        return left

    def held_back_tasks(self, why: HeldBack = "limited") -> set[str]:
        """The tasks with held-back messages."""
        found: Any = self.store.redis.smembers(self.store.key(why))
        return {name.decode(errors="replace") for name in found}

    def held_back(self, tasks: Collection[str], why: HeldBack = "limited") -> int:
        """How many messages of these tasks are held back; at the most, since some may have ended meanwhile."""
        redis: Any = self.store.redis
        with redis.pipeline(transaction=False) as pipe:
            for task in sorted(tasks):
                pipe.zcard(self.store.key(why, task))
            return sum(pipe.execute())

    def sweep(self, queues: Collection[str] = ()) -> Swept:
        """Make due messages ready, and those of dead workers. Repair messages that are in no place.

        Args:
            queues: the caller's queues, which are swept even if the server has forgotten them.
        """
        swept = Swept(0, 0, 0)
        while True:
            lapsed, due, found, lost = map(
                int, self._run("take_from_dead_workers", [SWEEP_LIMIT, self._visibility, *queues])
            )
            swept = Swept(swept.recovered + lapsed, swept.found + found, swept.lost + lost)
            if max(lapsed, due) < SWEEP_LIMIT:
                return swept

    def cancel(self, message_id: str, keep: timedelta) -> CancelAnswer:
        """Cancel a message that has not started. A running job learns it at its next report of progress."""
        answer: CancelAnswer = self._run("cancel", [message_id, milliseconds(keep)]).decode()
        return answer

    def places(self, message_ids: Sequence[str]) -> list[Place | None]:
        """Whether each message waits or runs. `None` for one that is not there: it has ended."""
        places: dict[bytes | None, Place | None] = {None: None, b"waiting": "waiting", b"running": "running"}
        return [
            places[one]
            for several in _batches((one,) for one in message_ids)
            for one in self._run("message_places", several)
        ]

    def sizes(self, queue: str) -> Sizes:
        """The number of messages in each place, in one transaction, so that a moving message is counted once."""
        with self.store.redis.pipeline(transaction=True) as pipe:
            for place in ("queue", "delayed", "inflight"):
                pipe.zcard(self.store.key(place, queue))
            return Sizes(*pipe.execute())

    def levels(self, queues: Sequence[str]) -> dict[str, QueueLevel]:
        """How many messages these queues have, and since when the oldest waits. Raises: RedisError."""
        return levels_in(self.store, queues)

    def queues(self) -> list[str]:
        """The queues that have or had messages."""
        found: Any = self.store.redis.smembers(self.store.key("queues"))
        return sorted(name.decode() for name in found)

    def drop(self, queue: str) -> int:
        """Remove messages without a trace, such as answers to remote control. Returns how many.

        Messages of tasks need an SQL row when they end: see `execution/purge_queues.py`.
        """
        removed = 0
        while True:
            step = int(self._run("drop_queue", [queue, SWEEP_LIMIT]))
            removed += step
            if step < SWEEP_LIMIT:
                return removed


def _batches(parts: Iterator[tuple[Any, ...]]) -> Iterator[list[Any]]:
    for several in batched(parts, AT_ONCE):
        yield [value for one in several for value in one]


def _in_common(one: Publication) -> tuple[Any, ...]:
    return one.queue, one.priority, milliseconds(one.wait), one.generation, milliseconds(one.lifetime)
