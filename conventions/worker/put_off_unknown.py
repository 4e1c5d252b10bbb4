"""A message that this worker cannot run waits in its queue for a while: during a deploy, another worker may know its task, or its key.

Nothing is counted but that, in headers of its own: no attempt, no start, no delivery.
"""

import logging
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from conventions.broker.codec import DELIVERY
from conventions.broker.header_names import UNKNOWN, UNKNOWN_SINCE
from conventions.broker.redis_broker import HeldMessage
from conventions.core.deadline import Deadline
from conventions.core.error_text import cut
from conventions.core.errors import UnknownTask
from conventions.execution.application import Application
from conventions.storage.redis_store import DISK_TIMEOUT, Store

logger = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds, twice as long each time
NO_TASK = "no such task is registered here"
NO_KEY = "it is signed with a key that is not here"
NO_PAYLOAD_KEY = "it is sealed with a key that is not here"
RECENT = 60.0  # seconds since a message of a task was put off: it waits


class PutOff(NamedTuple):
    """How a message goes back: seconds to wait, and the headers that say so."""

    wait: float
    headers: dict[str, Any]


def put_off(headers: Mapping[str, Any], within: float, now: datetime) -> PutOff | None:
    """How a message of an unknown task goes back; `None` when it has waited for `within` seconds.

    Args:
        headers: of the message; another program may have written them.
        within: seconds from the first time.
        now: aware.
    """
    count, since = headers.get(UNKNOWN), now
    count = count if type(count) is int and count > 0 else 0
    with suppress(ValueError, TypeError, OverflowError):
        since = datetime.fromisoformat(headers[UNKNOWN_SINCE]).astimezone(UTC) if count else now
    # So often it cannot have been sooner, whatever the clocks say.
    most = math.ceil(within / LONGEST_WAIT) + math.ceil(math.log2(LONGEST_WAIT / FIRST_WAIT)) + 1
    left = within - max((now - since).total_seconds(), 0.0)
    if left <= 0 or count >= most:
        return None
    wait = min(FIRST_WAIT * 2 ** min(count, 10), LONGEST_WAIT, max(left, FIRST_WAIT / 10))
    return PutOff(wait, {UNKNOWN: count + 1, UNKNOWN_SINCE: since.isoformat()})


class UnknownTasks:
    """What a worker does with messages whose task or key it does not know.

    Args:
        consumer: the worker's.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._app: Application = consumer.app

    def returned(self, message: Any, why: str = NO_TASK) -> bool:
        """Let a message wait. False when it has waited for so long that it ends. `why`: one of the texts above."""
        within = self._app.settings.unknown_task_wait
        how = put_off(message.headers, within, datetime.now(UTC))
        if how is None:
            return False
        logger.warning(
            "unknown: id=%s task=%s: %s; it is back in its queue for %.1f s, the %d. time within %.0f s",
            cut(str(message.headers.get("id"))),
            cut(str(message.headers.get("task"))),
            why,
            how.wait,
            how.headers[UNKNOWN],
            within,
        )
        delivery = (message.properties or {}).get(DELIVERY)
        if delivery is None:
            send_again(self._consumer, message, how.wait, how.headers)
        else:
            self._put_back(message, delivery, how, str(message.headers["task"]) if why == NO_TASK else "")
        return True

    def leave(self, message: Any) -> None:
        """Where the broker is not Redis: return a message that a later release has written, after a while."""
        self._consumer.qos.increment_eventually()
        self._consumer.timer.call_after(LONGEST_WAIT, self._return, (message,))

    def _return(self, message: Any) -> None:
        self._consumer.qos.decrement_eventually()
        message.reject_log_error(logger, self._consumer.connection_errors, requeue=True)

    def _put_back(self, message: Any, delivery: dict[str, Any], how: PutOff, task: str) -> None:
        held = HeldMessage.of(delivery)
        try:
            self._app.broker.put_off(held, how.wait, delivery.get("changes", {}) | how.headers, task)
        except RedisError:
            message.reject_log_error(logger, self._consumer.connection_errors, requeue=True)
            return
        channel = message.channel
        self._app.in_flight.forget(held.receipt)
        channel.qos.let_go(message.delivery_tag)
        channel.others_first_until = max(channel.others_first_until, time.monotonic() + how.wait + 1)


def unknown_task(app: Application, name: str) -> UnknownTask:
    """The error of the letter."""
    within = app.settings.unknown_task_wait
    waited = f" on the workers that had its message within {within:.0f} s" if within else ""
    return UnknownTask(f"no task {name!r} is registered{waited}; deploy it, or list it in `aliases`")


def waiting_tasks(store: Store) -> list[str]:
    """Tasks of which a message was put off within the last minute, since no worker that had it knew the task. Raises: RedisError."""
    redis: Any = store.redis
    now, _ = redis.time()
    found = redis.zrangebyscore(store.key("unknown_tasks"), now - RECENT, "+inf")
    return sorted(name.decode(errors="replace") for name in found)


def send_again(consumer: Any, message: Any, wait: float, headers: Mapping[str, Any]) -> None:
    """Where the broker is not Redis: a copy takes the place of a message, and waits at the broker.

    Args:
        consumer: the worker's.
        message: it is acknowledged; where the copy cannot be sent, it goes back.
        wait: seconds.
        headers: of the copy, which differ.
    """
    due = datetime.now(UTC) + timedelta(seconds=wait)
    try:
        with Deadline(consumer.app.settings.broker_timeout + DISK_TIMEOUT):  # what waits in Redis is on its disk first
            _publish_copy(consumer.app, message, {**headers, "eta": due.isoformat()})
    except Exception as error:  # noqa: BLE001  # whatever it is, the message is there
        logger.warning("id=%s goes back as it is: %s", message.headers.get("id"), error)
        message.reject_log_error(logger, consumer.connection_errors, requeue=True)
    else:
        message.ack_log_error(logger, consumer.connection_errors)


def _publish_copy(app: Application, message: Any, headers: Mapping[str, Any]) -> None:
    route, properties = message.delivery_info, message.properties
    with app.producer_or_acquire() as producer:
        producer.publish(
            message.body,
            exchange=route["exchange"],
            routing_key=route["routing_key"],
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers={**message.headers, **headers},
            priority=properties.get("priority"),
            correlation_id=properties.get("correlation_id"),
            reply_to=properties.get("reply_to"),
            expiration=None,
            retry=False,
        )
