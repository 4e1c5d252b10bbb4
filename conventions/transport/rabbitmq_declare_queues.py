"""`QueueChannel`: declares, empties and deletes queues: each of ours is four of RabbitMQ's, see `broker/rabbitmq_priorities.py`.

Names mean our queues in every call of kombu's. A queue that another program has made, which may drop messages, is refused.
"""

from types import MappingProxyType
from typing import Any

from amqp.exceptions import PreconditionFailed, ResourceLocked  # type: ignore[import-untyped]  # it has no types
from amqp.protocol import queue_declare_ok_t  # type: ignore[import-untyped]  # the same
from kombu.transport import pyamqp

from conventions.broker.rabbitmq_priorities import ENDINGS, queues_of
from conventions.core.deadline import current_deadline
from conventions.core.errors import ConfigurationError
from conventions.execution.purge_queues import purge
from conventions.storage.redis_connections import LEAST

ANSWERS_WITHIN = 5.0  # seconds that a worker waits for an answer of the broker, before it connects anew
QUEUE_NAME_LIMIT = 255 - len(":urgent")  # bytes
NOT_FOR_QUORUM = "x-max-priority"
YEAR = 365 * 24 * 3600 * 1000  # milliseconds
ARGUMENTS = MappingProxyType(
    {
        "x-queue-type": "quorum",
        "x-delivery-limit": -1,  # how often a message may begin is `start_limit`; this one would drop it without a letter
        "x-consumer-timeout": YEAR,  # no job is longer; RabbitMQ would take a message back after half an hour
    }
)

_IN_USE = (
    "the queue {queue!r} is in use: another worker of this name runs (see --hostname), or RabbitMQ has not seen yet that an earlier connection "
    "is gone"
)


class QueueChannel(pyamqp.Channel):
    """A channel of an application of ours; of another program's, it is kombu's.

    Attributes:
        plain: whether names mean what they mean to RabbitMQ.
    """

    def __init__(self, connection: Any, *args: Any, **options: Any) -> None:
        self.plain = connection.link is None
        super().__init__(connection, *args, **options)

    def wait(self, method: Any, callback: Any = None, timeout: float | None = None, returns_tuple: bool = False) -> Any:
        """Wait for an answer; no longer than the deadline of a send, and never for ever."""
        deadline = current_deadline()
        if timeout is None and not self.plain:
            timeout = ANSWERS_WITHIN if deadline is None else max(deadline.left, LEAST)
        return super().wait(method, callback, timeout, returns_tuple)

    def queue_declare(  # noqa: PLR0917  # py-amqp's signature
        self, queue: str = "", passive: bool = False, durable: bool = False, exclusive: bool = False,
        auto_delete: bool = True, nowait: bool = False, arguments: Any = None, **more: Any,
    ) -> Any:  # fmt: skip
        """Declare a queue. One that outlives its connection is one of ours, and four at RabbitMQ."""
        if self.plain or not queue or not durable or exclusive or auto_delete:
            try:
                return super().queue_declare(queue, passive, durable, exclusive, auto_delete, nowait, arguments, **more)
            except ResourceLocked as error:  # Celery would end its worker; of a lost connection it tries again
                raise ConnectionError(_IN_USE.format(queue=queue)) from error
        if passive:
            return self._total(
                [super(QueueChannel, self).queue_declare(name, passive=True) for name in queues_of(queue)]
            )
        _check_name(queue)
        given = {name: value for name, value in (arguments or {}).items() if name != NOT_FOR_QUORUM}
        found = []
        for name in queues_of(queue):
            try:
                found.append(
                    super().queue_declare(name, durable=True, auto_delete=False, arguments={**given, **ARGUMENTS})
                )
            except PreconditionFailed as error:
                raise ConfigurationError([_other_queue(name, error)]) from error
        self.connection.task_queues.add(queue)
        return self._total(found)

    @staticmethod
    def _total(found: list[Any]) -> Any:
        counts, consumers = sum(one.message_count for one in found), max(one.consumer_count for one in found)
        return queue_declare_ok_t(found[list(ENDINGS.values()).index("")].queue, counts, consumers)

    def _is_ours(self, queue: str) -> bool:
        if self.plain:
            return False
        return queue in self.connection.task_queues or queue in self.connection.link.app.amqp.queues

    def _all_of(self, queue: str) -> list[str]:
        return queues_of(queue) if self._is_ours(queue) else [queue]

    def queue_purge(self, queue: str = "", nowait: bool = False, **more: Any) -> Any:
        """Remove what waits. Returns how many. Of what is not due each leaves a row."""
        removed = [super(QueueChannel, self).queue_purge(name, nowait, **more) for name in self._all_of(queue)]
        kept = sum(purge(self.connection.link.app, [queue]).values()) if self._is_ours(queue) else 0
        return None if nowait else sum(removed) + kept

    def queue_delete(self, queue: str = "", *args: Any, **options: Any) -> Any:
        """Delete a queue."""
        removed = [super(QueueChannel, self).queue_delete(name, *args, **options) for name in self._all_of(queue)]
        return None if None in removed else sum(removed)

    def make_queue(self, queue: str) -> None:
        """Declare a queue of ours, with the arguments that the application's configuration names."""
        named = self.connection.link.app.amqp.queues.get(queue)
        self.queue_declare(queue, durable=True, auto_delete=False, arguments=named and named.queue_arguments)

    def waiting(self, queue: str) -> int:
        """How many messages of a queue are ready. Raises: NotFound, which closes this channel."""
        return sum(
            super(QueueChannel, self).queue_declare(name, passive=True).message_count for name in queues_of(queue)
        )


def _check_name(queue: str) -> None:
    if len(queue.encode()) > QUEUE_NAME_LIMIT:
        raise ConfigurationError(
            [
                f"the name of the queue {queue[:40]!r}… has {len(queue.encode())} bytes; RabbitMQ takes {QUEUE_NAME_LIMIT} at most"
            ]
        )
    if ending := next((one for one in ENDINGS.values() if one and queue.endswith(one)), None):
        raise ConfigurationError(
            [
                f"the queue {queue!r} cannot end with {ending!r}, which names a priority in RabbitMQ; give it another name"
            ]
        )


def _other_queue(name: str, error: Exception) -> str:
    return (
        f"RabbitMQ has a queue {name!r} that is not one of ours ({error}): let the workers that made it empty it, then delete it, "
        f"for example with `rabbitmqctl delete_queue {name}`; or use another virtual host"
    )
