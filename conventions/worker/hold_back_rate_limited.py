"""`RateLimits`: holds back the jobs of a task that has a rate limit, and nothing else.

Celery keeps such messages in the worker, where they take the room of all others. Here a worker keeps those that are due within two
seconds, and puts the others back, in place: they are delayed, and noted under their task. Each time that a job may run, the worker lets
as many through as that allows, those first that were sent first; where the limit is lifted, all of them. As in Celery, each worker has
the limit for itself.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from redis.exceptions import RedisError

from conventions.broker.redis_broker import Broker
from conventions.core.errors import UndeliverableMessage
from conventions.execution.application import Application
from conventions.worker.shutdown import stops

logger = logging.getLogger(__name__)

AHEAD = 2.0  # seconds of which a worker keeps what is due
MOST = 256  # messages of a task that it keeps
ASK_EVERY = 0.5  # seconds between two times that it lets others through, where it keeps none
ALL = 1 << 40


class RateLimits:
    """Those of one consumer; used by the thread of its loop."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._app: Application = consumer.app
        self._looks: dict[str, Any] = {}  # by task: the timer of its next look
        self._held_back: Counter[str] = Counter()  # tasks of which some may be held back, and how often that was so

    def attach(self) -> None:
        """A connection is there: go on with what other workers, or this one before, held back."""
        self._looks.clear()  # a connection that was lost has taken the timers with it
        with suppress(RedisError):  # what is held back is due some time
            for name in self._app.broker.held_back_tasks():
                bucket = self._consumer.task_buckets.get(name)
                self._let_through(name, self._share(bucket) if bucket else ALL)

    def admits(self, name: str, message: Any, run: Callable[[], None]) -> bool:
        """Whether a job may run now. If not, `run` is called when it may, or its message is back in its queue."""
        bucket = self._consumer.task_buckets[name]
        self._held_back[name] += 1  # where one comes, others may wait
        self._look_later(name, bucket)
        if not bucket.contents and bucket.can_consume():
            return True
        qos, tag = message.channel.qos, message.delivery_tag
        kept = len(bucket.contents)
        if kept < MOST and bucket.expected_time(kept + 1) <= AHEAD:
            qos.set_aside(tag)
            bucket.add((message, run))
        else:
            self._app.in_flight.hold_back(tag, name, 1 / bucket.fill_rate)
            qos.let_go(tag)
        return False

    def change(self, before: dict[str, Any]) -> None:
        """Limits are other ones than before: nothing waits for one that has ended."""
        for name, old in before.items():
            bucket = self._consumer.task_buckets[name]
            if name in self._looks:
                self._looks.pop(name).cancel()
            if old and bucket:
                bucket.contents.extend(old.contents)
                self._look_later(name, bucket)
            elif old:
                for message, run in old.contents:
                    self._run(message, run)
                self._let_through(name, ALL)
        self._handed_over()

    @staticmethod
    def _share(bucket: Any) -> int:
        return min(math.ceil(float(bucket.fill_rate) * AHEAD), MOST)

    def _look_later(self, name: str, bucket: Any) -> None:
        if name not in self._looks:
            wait = bucket.expected_time(1)
            if not bucket.contents:
                wait = max(wait - AHEAD / 2, ASK_EVERY)  # so that the next one is here when it may run
            self._looks[name] = self._consumer.timer.call_after(wait, self._look, (name,))

    def _look(self, name: str) -> None:
        self._looks.pop(name, None)
        bucket = self._consumer.task_buckets[name]
        if not bucket or stops():
            return
        while bucket.contents and bucket.can_consume():
            self._run(*bucket.pop())
        self._handed_over()
        share, kept = self._share(bucket), len(bucket.contents)
        if self._held_back[name] and kept <= share // 2 and bucket.expected_time(kept + 1) <= AHEAD:
            self._let_through(name, share - kept)
        if bucket.contents or self._held_back[name]:
            self._look_later(name, bucket)

    def _run(self, message: Any, run: Callable[[], None]) -> None:
        message.channel.qos.take_back(message.delivery_tag)
        try:
            run()
        except Exception as error:  # whatever it is, it must neither end the worker nor loop
            logger.exception("a message cannot be handled")
            self._consumer.refuse(message, UndeliverableMessage(f"{type(error).__name__}: {error}"))

    def _handed_over(self) -> None:
        """As after a read."""
        channel = getattr(self._consumer.task_consumer, "channel", None)
        after_read = getattr(channel, "after_read", None)
        if after_read is not None:
            after_read()
        self._consumer.write_to_pool()

    def _let_through(self, name: str, most: int) -> None:
        self._app.in_flight.soon(partial(self._ask, name, most, self._held_back[name]))

    def _ask(self, name: str, most: int, known: int, broker: Broker) -> None:
        """From another thread."""
        if not broker.let_through(name, most) and self._held_back[name] == known:
            self._held_back[name] = 0
