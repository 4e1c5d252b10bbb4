"""`Broker`: messages in Redis, each in exactly one of three places: ready, delayed, in flight.

Only the scripts move a message, and whoever holds one has a receipt, fresh for each delivery; a stale receipt touches
nothing. All deadlines and due times are the server's. The states are drawn in `docs/design.md`.
"""

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import batched, groupby
from secrets import token_hex
from typing import Any, Literal, NamedTuple

from redis.exceptions import RedisError, ResponseError

from conventions.broker.delivery import Delivery, ReadRequest, brought
from conventions.core.deadline import current_deadline
from conventions.core.errors import BrokerUnavailable
from conventions.core.redis_answers import advice_on
from conventions.core.timings import USUAL
from conventions.core.units import milliseconds
from conventions.storage.layout_version import LAYOUT, LOWEST, SAY_EVERY, member_name, refused
from conventions.storage.redis_store import Store
from conventions.storage.script_call import ScriptCall

SWEEP_LIMIT = 1000  # messages that one call of the sweep moves in each queue
RUN = 1000  # messages that `publish` takes in one piece, since Lua's stack is limited
AT_ONCE = 500  # messages in one call of the other scripts

type Beat = Literal["held", "lost", "lapsed"]
type Place = Literal["waiting", "running"]
type CancelAnswer = Literal["queued", "running", "too late"]


class Publication(NamedTuple):
    """A message to be sent.

    Attributes:
        tag: names the message; sending the same one again while it is there changes nothing.
        payload: the message as kombu writes it, JSON.
        priority: 0 to 9, 9 first.
        wait: seconds until it is due.
        digest: what the message asks for; another message may have the same id, as after `self.replace`.
        generation: how often it was redriven.
        lifetime: seconds after which nobody comes for it, or 0.
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
    """What a process needs to act on a message it holds.

    Attributes:
        claim: empty until its job has started.
        token: the same.
        followed_id: the message's id where something follows its job, to be noted when it is acknowledged.
    """

    tag: str | bytes
    queue: str
    receipt: str
    claim: str = ""
    token: str = ""
    followed_id: str = ""


class Swept(NamedTuple):
    """What a sweep has found.

    Attributes:
        recovered: messages that dead workers held, at least.
        found: messages that a worker held, and of which the server had forgotten that they are in flight.
        lost: messages that were in flight and are gone from the server; each has an event.
    """

    recovered: int
    found: int
    lost: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Messages of one queue by place."""

    ready: int
    delayed: int
    in_flight: int


class Broker:
    """The messages of one application.

    Args:
        store: the Redis they are in.
        journal_limit: events waiting in the journal at which sends are refused.
        visibility: seconds without a heartbeat after which a message goes to another worker.
    """

    def __init__(self, store: Store, *, journal_limit: int, visibility: float = USUAL.visibility) -> None:
        self.store = store
        self.journal_limit = journal_limit
        self._visibility = milliseconds(visibility)
        self._says = (0, 0.0)  # the process that sends, and when it is to say so

    def _run(self, script: str, arguments: Sequence[Any]) -> Any:
        try:
            return self.store.run(script, arguments)
        except ResponseError as error:
            if newer := refused(error):
                raise newer from error
            raise

    def publish(self, publications: Sequence[Publication]) -> list[str]:
        """Send messages in one round trip; returns their tags, empty for one that is there already.

        Raises:
            BrokerUnavailable: Redis takes no messages now: it or its journal is full, it is a replica, or the like.
            RedisError: it does not answer.
            NewerLayout: a later release has written what is there.
        """
        call = self.ask_publish(publications)
        try:
            return self.published(call)
        finally:
            call.close()

    def ask_publish(self, publications: Sequence[Publication]) -> ScriptCall:
        """Send messages, whose answer is read later, by `published`; the caller closes what it gets. Raises: RedisError."""
        return self.store.call("publish", self._publish_arguments(publications))

    @staticmethod
    def published(call: ScriptCall) -> list[str]:
        """The answer of `ask_publish`, as that of `publish`. Raises: RedisError, BrokerUnavailable, NewerLayout."""
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
        """Who sends, once in a while."""
        now, process = time.monotonic(), os.getpid()
        if (process, now) < self._says:
            return ""
        self._says = (process, now + SAY_EVERY)
        return f" {LOWEST}:{LAYOUT} {member_name('sender')}"

    def _publish_arguments(self, publications: Sequence[Publication]) -> list[Any]:
        arguments: list[Any] = [self.journal_limit, f"~{token_hex(4)}{self._sender()}"]
        if len(publications) == 1:  # which is not worth making runs of
            (one,) = publications
            return [*arguments, *_in_common(one), 1, one.tag, one.payload, one.digest]
        for common, run in groupby(publications, _in_common):
            for part in batched(run, RUN, strict=False):
                arguments += (*common, len(part))
                for one in part:
                    arguments += (one.tag, one.payload, one.digest)
        return arguments

    def reserve(self, queues: Sequence[str], count: int) -> list[Delivery]:
        """Take up to `count` ready messages, at once."""
        return brought(self._run("reserve", ReadRequest(queues, count).arguments(self._visibility)))[1]

    def reserve_command(self, wanted: ReadRequest) -> list[Any]:
        """The command of `reserve`, for a connection that is read when its answer is there."""
        script = self.store.script("reserve")
        return ["EVALSHA", script.sha, 1, self.store.key(""), *wanted.arguments(self._visibility)]

    def wait_command(self, queues: Sequence[str], seconds: float) -> list[Any]:
        """The command that waits until one of the queues may have a message."""
        return ["BZPOPMIN", *(self.store.key("wake", queue) for queue in queues), f"{max(seconds, 0.001):.3f}"]

    def load_scripts(self) -> None:
        """Send the script of the reads to a server that was started anew."""
        self.store.redis.script_load(self.store.script("reserve").script)

    def wake(self, queues: Sequence[str], *, lifetime: float = 0.0) -> None:
        """Let an idle worker look into each of these queues; a lifetime, in seconds, is for a mark that has one reader."""
        with self.store.redis.pipeline(transaction=lifetime > 0) as pipe:
            for queue in queues:
                pipe.zadd(self.store.key("wake", queue), {"1": 0})
                if lifetime:
                    pipe.pexpire(self.store.key("wake", queue), milliseconds(lifetime))
            pipe.execute()

    def acknowledge(self, messages: Sequence[HeldMessage]) -> int:
        """Remove messages that have ended. Returns how many were still ours."""
        parts = ((one.tag, one.queue, one.receipt, one.claim, one.followed_id) for one in messages)
        return sum(int(self._run("acknowledge", arguments)) for arguments in _batches(parts))

    def heartbeat(self, messages: Sequence[HeldMessage]) -> list[Beat]:
        """Keep messages from going to another worker."""
        parts = ((one.tag, one.queue, one.receipt, one.claim, one.token) for one in messages)
        replies = [self._run("heartbeat", [self._visibility, *arguments]) for arguments in _batches(parts)]
        return [answer.decode() for reply in replies for answer in reply]

    def give_back(
        self, messages: Sequence[HeldMessage], *, wait: float = 0.0, counted: bool = False, why: str = ""
    ) -> int:
        """Return messages to the front of their queues and release their claims. Returns how many were still ours.

        Args:
            messages: what to return.
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
        """Let a message wait in place whose task is not known here.

        Args:
            message: in hand.
            wait: seconds.
            changes: all its headers that differ from those that were sent.
            task: the name.
        """
        one = (message.tag, message.queue, message.receipt)
        self._run("put_off", [*one, milliseconds(wait), json.dumps(changes), task])

    def leave(self, messages: Sequence[HeldMessage]) -> int:
        """Let messages wait in place that a later release has written. Returns how many were still ours."""
        parts = ((one.tag, one.queue, one.receipt) for one in messages)
        return sum(int(self._run("leave", arguments)) for arguments in _batches(parts))

    def hold_back(self, messages: Sequence[HeldMessage], *, task: str, period: float) -> int:
        """Return messages that wait for the rate limit of their task; see `let_through`. Returns how many were still ours.

        Args:
            messages: what to return.
            task: whose they are.
            period: seconds between two jobs of the task.
        """
        parts = ((one.tag, one.queue, one.receipt, task, milliseconds(period)) for one in messages)
        return sum(int(self._run("hold_back", arguments)) for arguments in _batches(parts))

    def let_through(self, task: str, most: int) -> int:
        """Make so many messages ready that were held back, those first that were sent first. Returns how many are left."""
        left = most
        while most > 0 and left > 0:
            ready, left = map(int, self._run("let_through", [task, min(most, SWEEP_LIMIT)]))
            most -= max(ready, 1)
        return left

    def limited_tasks(self) -> set[str]:
        """The tasks of which messages are held back."""
        found: Any = self.store.redis.smembers(self.store.key("limited"))
        return {name.decode(errors="replace") for name in found}

    def sweep(self, queues: Collection[str] = ()) -> Swept:
        """Make ready what a dead worker held and what is due, and find what no set has any more.

        Args:
            queues: those that the caller consumes, which are swept whatever the server remembers.
        """
        swept = Swept(0, 0, 0)
        while True:
            lapsed, due, found, lost = map(int, self._run("sweep", [SWEEP_LIMIT, self._visibility, *queues]))
            swept = Swept(swept.recovered + lapsed, swept.found + found, swept.lost + lost)
            if max(lapsed, due) < SWEEP_LIMIT:
                return swept

    def cancel(self, message_id: str, keep: timedelta) -> CancelAnswer:
        """Keep a message from running, or tell its job at the next report of progress."""
        answer: CancelAnswer = self._run("cancel", [message_id, milliseconds(keep)]).decode()
        return answer

    def places(self, message_ids: Sequence[str]) -> list[Place | None]:
        """Whether each message is waiting or running; `None` for one that is not there, since it has ended."""
        places: dict[bytes | None, Place | None] = {None: None, b"waiting": "waiting", b"running": "running"}
        return [
            places[one] for several in _batches((one,) for one in message_ids) for one in self._run("places", several)
        ]

    def sizes(self, queue: str) -> Sizes:
        """How many messages are where, in one look: none is missed on its way from one place to another."""
        with self.store.redis.pipeline(transaction=True) as pipe:
            for place in ("queue", "delayed", "inflight"):
                pipe.zcard(self.store.key(place, queue))
            return Sizes(*pipe.execute())

    def queues(self) -> list[str]:
        """The queues that have messages, or had some."""
        found: Any = self.store.redis.smembers(self.store.key("queues"))
        return sorted(name.decode() for name in found)

    def drop(self, queue: str) -> int:
        """Remove messages that nobody need know of, such as answers to remote control. Returns how many.

        Messages of tasks end with a row: see `execution/purge.py`.
        """
        removed = 0
        while True:
            step = int(self._run("drop", [queue, SWEEP_LIMIT]))
            removed += step
            if step < SWEEP_LIMIT:
                return removed


def _batches(parts: Iterator[tuple[Any, ...]]) -> Iterator[list[Any]]:
    for several in batched(parts, AT_ONCE, strict=False):
        yield [value for one in several for value in one]


def _in_common(one: Publication) -> tuple[Any, ...]:
    return one.queue, one.priority, milliseconds(one.wait), one.generation, milliseconds(one.lifetime)
