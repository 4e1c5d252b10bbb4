"""`InFlight`: the messages that this process holds, even if the connection that delivered them is gone.

One thread sends their heartbeats, acknowledges and returns finished ones, and sweeps up the messages of dead workers.
It repeats
each call until Redis accepts it, so no error reaches Celery's loop.
"""

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from conventions.broker.delivery import Delivery, tag_of
from conventions.broker.redis_broker import Broker, HeartbeatAnswer, HeldBack, HeldMessage, Swept
from conventions.core.forks import call_in_child
from conventions.core.halve_failing_call import apart
from conventions.core.lease_timings import USUAL, Timings
from conventions.core.outage import is_outage

logger = logging.getLogger(__name__)

GATHER = 0.02  # seconds in which acknowledgements are collected; the outcomes are already recorded
STOP_WITHIN = 5.0  # seconds that `stop` waits for the last calls
LAPSES = 2  # consecutive heartbeats that must find a lease expired; after an outage the job may renew it in between


class Start(NamedTuple):
    """The start of a job; see `InFlight.begin`."""

    receipt: str
    claim: str
    token: str
    on_lapsed: Callable[[], bool]
    followed_id: str = ""


class Keeper(Protocol):
    """Renews the claims of the jobs in other processes of this worker; see `PageKeeper`."""

    @property
    def next_at(self) -> float:
        """When it is time to renew, by the monotonic clock."""

    def begin(self) -> None:
        """The thread begins: the first renewal is not due at once."""

    def renew_if_due(self) -> None:
        """Renew all leases that should go on, if it is time. Never raises."""


class InFlight:
    """The messages that this process holds, by receipt. Safe to use from several threads; empty after a fork.

    Args:
        broker: where the messages are.
        keeper: renews the claims of the jobs in other processes of this worker.
        timings: how often it sends heartbeats and sweeps.
    """

    def __init__(self, broker: Broker, keeper: Keeper | None = None, *, timings: Timings = USUAL) -> None:
        self._broker, self._keeper, self._timings = broker, keeper, timings
        self._chance = random.Random()  # spreads heartbeats; other threads use the shared generator
        self.sweeps = False  # set where messages are consumed
        self._queues: tuple[str, ...] = ()
        self._reset()
        call_in_child(self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[str, HeldMessage] = {}
        self._leaving: set[str] = set()
        self._ended: list[HeldMessage] = []
        self._returned: list[tuple[HeldMessage, float, bool, str]] = []
        self._left: list[HeldMessage] = []
        self._held_back: list[tuple[HeldMessage, str, float, HeldBack]] = []
        self._calls: list[Callable[[Broker], None]] = []
        self._on_lapsed: dict[str, Callable[[], bool]] = {}
        self._lapses: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self._stops = False
        self._next_heartbeat = 0.0
        self._looks = False

    def start(self, queues: Iterable[str] = ()) -> None:
        """Start the thread and the sweep. These queues are always swept."""
        self.sweeps, self._queues = True, tuple(queues)
        with self._changed:
            self._ensure_thread()

    def add(self, *deliveries: Delivery) -> None:
        """Hold delivered messages."""
        held = {one.receipt: HeldMessage(tag_of(one.tag), one.queue, one.receipt) for one in deliveries}
        with self._changed:
            self._held.update(held)
            self._ensure_thread()

    def begin(
        self, receipt: str, claim: str, token: str, on_lapsed: Callable[[], bool], *, followed_id: str = ""
    ) -> None:
        """Note that a job starts. When the lease of its claim has expired, the thread calls `on_lapsed` until it returns true."""
        self.begin_all([Start(receipt, claim, token, on_lapsed, followed_id)])

    def begin_all(self, starts: Iterable[Start]) -> None:
        """Note that several jobs start."""
        with self._changed:
            for receipt, claim, token, on_lapsed, followed_id in starts:
                if held := self._held.get(receipt):
                    self._held[receipt] = HeldMessage(held.tag, held.queue, receipt, claim, token, followed_id)
                    self._on_lapsed[receipt] = on_lapsed

    def acknowledge(self, receipt: str) -> None:
        """Acknowledge a finished message, soon. It is held until then."""
        with self._changed:
            if held := self._staying(receipt):
                self._ended.append(held)
                self._changed.notify()

    def give_back(self, receipt: str, *, wait: float = 0.0, counted: bool = False, why: str = "") -> None:
        """Return the message to its queue, soon; see `Broker.give_back`."""
        with self._changed:
            if held := self._staying(receipt):
                self._returned.append((held, wait, counted, why))
                self._changed.notify()

    def leave(self, receipt: str) -> None:
        """Leave a message in place that nobody here can read, soon; see `Broker.leave`."""
        with self._changed:
            if held := self._staying(receipt):
                self._left.append(held)
                self._changed.notify()

    def hold_back(self, receipt: str, task: str, period: float, why: HeldBack = "limited") -> None:
        """Return a message that waits for the rate limit of its task, or its pause, soon; see `Broker.hold_back`."""
        with self._changed:
            if held := self._staying(receipt):
                self._held_back.append((held, task, period, why))
                self._changed.notify()

    def soon(self, call: Callable[[Broker], None]) -> None:
        """Call this from the thread, after the pending returns, until Redis answers. The call may run twice."""
        with self._changed:
            self._calls.append(call)
            self._ensure_thread()
            self._changed.notify()

    def _staying(self, receipt: str) -> HeldMessage | None:
        # The first decision about a message counts: Celery later also rejects messages that were already returned.
        held = None if receipt in self._leaving else self._held.get(receipt)
        if held:
            self._leaving.add(receipt)
        return held

    def get(self, receipt: str) -> HeldMessage | None:
        """The message of a delivery, while it is held."""
        return self._held.get(receipt)

    def count(self) -> int:
        """How many messages are held."""
        return len(self._held)

    def give_back_unstarted(self, receipts: Iterable[str] | None = None) -> int:
        """Return messages that have not started, of these receipts or of all. The result is their number."""
        with self._changed:
            chosen = [
                held
                for receipt, held in self._held.items()
                if not held.token and (receipts is None or receipt in receipts) and self._staying(receipt)
            ]
            self._returned += [(held, 0.0, False, "") for held in chosen]
            self._changed.notify()
        return len(chosen)

    def seize(self) -> list[HeldMessage]:
        """Take all held messages away from the other threads, for a process that ends now."""
        with self._changed:
            return [held for receipt, held in self._held.items() if self._staying(receipt)]

    def give_back_seized(self, held: Iterable[HeldMessage], why: str) -> None:
        """Return seized messages, and release the claims of running jobs. No start is counted; `why` they do not end here."""
        with self._changed:
            self._returned += [(one, 0.0, False, why) for one in held]
            self._changed.notify()

    def forget(self, *receipts: str) -> None:
        """Stop holding messages. After their visibility time-out they go to another worker."""
        with self._changed:
            self._drop(receipts)

    def holds(self, receipt: str) -> bool:
        """Whether this process holds a message, as far as it knows."""
        return receipt in self._held

    def look(self) -> None:
        """Check soon which held messages another worker has by now."""
        with self._changed:
            self._looks = True
            self._changed.notify()

    def flush(self, timeout: float) -> bool:
        """Wait until Redis has every acknowledgement and return. False when the time-out is over."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._changed.notify_all()
            while self._ended or self._returned or self._left or self._held_back:
                if not self._changed.wait(max(0.0, min(deadline - time.monotonic(), 0.1))) and (
                    time.monotonic() > deadline
                ):
                    return False
        return True

    def stop(self) -> None:
        """End the thread, where nothing is held any more, after one more try to acknowledge and return what has ended.

        It begins again with the next message.
        """
        with self._changed:
            self._stops, thread = True, self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(STOP_WITHIN)

    def __len__(self) -> int:
        """How many messages are held."""
        return len(self._held)

    def _ensure_thread(self) -> None:
        self._stops = False
        if self._thread is None or not self._thread.is_alive():
            self._next_heartbeat = time.monotonic() + self._timings.heartbeat
            if self._keeper is not None:
                self._keeper.begin()
            # A daemon thread does not delay the end of the process.
            self._thread = threading.Thread(target=self._run, name="in-flight", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        away = waits = False
        while True:
            with self._changed:
                if not self._stops and (waits or not self._has_work):
                    self._changed.wait(self._timings.retry_after if waits else self._idle_for())
                stops = self._stops
            if not waits:
                time.sleep(GATHER)
            is_due = time.monotonic() >= self._next_heartbeat
            steps: list[Callable[[], None]] = [self._let_go]
            if away or is_due:
                steps.insert(0, self._send_heartbeats)  # first: nothing may delay the heartbeats of running jobs
            elif self._looks:
                steps.insert(0, self._drop_lost)
            # After an outage, other workers must send heartbeats before we take over their messages.
            if self.sweeps and is_due and not away:
                steps.append(self._sweep)
            try:
                taken = [self._took(step) for step in steps]
                away, waits = False, not all(taken)
            except Exception as error:  # noqa: BLE001  # an outage: the thread lives, and tries again
                if not away:
                    logger.warning("messages in flight: Redis does not answer, trying again: %s", error)
                away = waits = True
            self._renew()
            with self._changed:
                if stops and self._stops:  # not where a message has come meanwhile
                    self._thread = None
                    return

    def _idle_for(self) -> float:
        """Seconds until there is something to do, where nobody asks before."""
        renewal = math.inf if self._keeper is None else self._keeper.next_at
        return max(0.0, min(self._next_heartbeat, renewal) - time.monotonic())

    def _renew(self) -> None:
        if self._keeper is not None:  # claims may be on another server than messages
            self._keeper.renew_if_due()

    @staticmethod
    def _took(step: Callable[[], None]) -> bool:
        """Run one step. A fault in it does not stop the other steps. Raises: RedisError, OSError for an outage."""
        try:
            step()
        except Exception as error:
            if is_outage(error):
                raise
            logger.exception("messages in flight: a fault of the platform")
            return False
        return True

    @property
    def _has_work(self) -> bool:
        return bool(self._ended or self._returned or self._left or self._looks or self._held_back or self._calls)

    def _let_go(self) -> None:
        with self._changed:
            ended, returned, left = list(self._ended), list(self._returned), list(self._left)
            held_back, calls = list(self._held_back), list(self._calls)
        if ended:
            self._for_each(self._broker.acknowledge, ended)
        for wait, counted, why in {(wait, counted, why) for _, wait, counted, why in returned}:
            give_back = partial(self._broker.give_back, wait=wait, counted=counted, why=why)
            self._for_each(give_back, [held for held, *how in returned if how == [wait, counted, why]])
        if left:
            self._for_each(self._broker.leave, left)
        for task, period, why in {(task, period, why) for _, task, period, why in held_back}:
            hold_back = partial(self._broker.hold_back, task=task, period=period, why=why)
            self._for_each(hold_back, [held for held, *how in held_back if how == [task, period, why]])
        if ended or returned or left or held_back:
            with self._changed:
                del self._ended[: len(ended)]
                del self._returned[: len(returned)]
                del self._left[: len(left)]
                del self._held_back[: len(held_back)]
                self._drop(held.receipt for held in (*ended, *left))
                self._drop(held.receipt for held, *_ in returned)
                self._drop(held.receipt for held, *_ in held_back)
                self._changed.notify_all()
        for call in calls:
            call(self._broker)
            self._calls.remove(call)

    @staticmethod
    def _for_each(call: Callable[[Sequence[HeldMessage]], object], held: Sequence[HeldMessage]) -> None:
        """Call for all. If one message is faulty, call without it; it goes to another worker after its visibility time-out."""

        def call_for(some: Sequence[HeldMessage]) -> list[None]:
            call(some)
            return [None] * len(some)

        for one, error in zip(held, apart(call_for, held), strict=True):
            if error is not None:
                logger.error("messages in flight: %r cannot be let go, and is forgotten: %s", one.tag, error)

    def _answers(self, held: Sequence[HeldMessage]) -> list[HeartbeatAnswer]:
        """Send heartbeats. A message with a fault counts as lost; the others are not affected. Raises: RedisError."""
        answers: list[HeartbeatAnswer] = []
        for one, answer in zip(held, apart(self._broker.heartbeat, held), strict=True):
            if isinstance(answer, Exception):
                logger.error("messages in flight: %r cannot be kept here, and is let go: %s", one.tag, answer)
                answers.append("lost")
            else:
                answers.append(answer)
        return answers

    def _drop_lost(self) -> None:
        """Forget messages that another worker has. This extra heartbeat does not count for expired leases."""
        self._looks = False
        with self._changed:
            held = list(self._held.values())
        answers = self._answers(held)
        with self._changed:
            self._drop([one.receipt for one, answer in zip(held, answers, strict=True) if answer == "lost"])

    def _send_heartbeats(self) -> None:
        with self._changed:
            held = list(self._held.values())
        self._next_heartbeat = time.monotonic() + self._timings.heartbeat * self._chance.uniform(0.9, 1.0)
        answers = self._answers(held)
        lapsed = []
        with self._changed:
            lost = [one.receipt for one, answer in zip(held, answers, strict=True) if answer == "lost"]
            self._drop(lost)
            for one, answer in zip(held, answers, strict=True):
                self._lapses[one.receipt] = self._lapses.get(one.receipt, 0) + 1 if answer == "lapsed" else 0
                if self._lapses[one.receipt] >= LAPSES and one.receipt in self._on_lapsed:
                    lapsed.append(one.receipt)
            self._lapses = {receipt: count for receipt, count in self._lapses.items() if count}
        if lost:  # or they have ended, and Celery has not reported it yet
            logger.debug("messages in flight: %d of %d are not held any more", len(lost), len(held))
        for receipt in lapsed:
            self._took(partial(self._tell_of_lapse, receipt))

    def _tell_of_lapse(self, receipt: str) -> None:
        call = self._on_lapsed.pop(receipt, None)
        if call is not None and not call():
            with self._changed:
                if receipt in self._held:
                    self._on_lapsed[receipt] = call

    def _sweep(self) -> None:
        _tell(self._broker.sweep(self._queues))

    def _drop(self, receipts: Iterable[str]) -> None:
        for receipt in receipts:
            self._held.pop(receipt, None)
            self._leaving.discard(receipt)
            self._on_lapsed.pop(receipt, None)
            self._lapses.pop(receipt, None)


def _tell(swept: Swept) -> None:
    if swept.recovered:
        logger.warning("messages in flight: %d of a dead worker are back in their queues", swept.recovered)
    if swept.found:
        logger.warning(
            "messages in flight: Redis had forgotten of %d that they are; somebody deleted keys", swept.found
        )
    if swept.lost:
        logger.error(
            "messages in flight: %d are gone from Redis, and recorded as lost; somebody deleted keys", swept.lost
        )
