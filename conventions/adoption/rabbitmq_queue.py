"""A queue of plain Celery in RabbitMQ. A message that is taken comes back when the connection ends, as long as it is not acknowledged."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from kombu.connection import Connection

from conventions.adoption.old_queue import OldMessage
from conventions.core.priority import Priority
from conventions.core.redis_address import shown


class RabbitMQQueue:
    """See `OldQueue`.

    Args:
        address: of the server, as Celery writes it.
        name: of the queue.
    """

    leaves_aside = False

    def __init__(self, address: str, name: str) -> None:
        self._name, self.place = name, f"{name} at {shown(address)}"
        try:
            self._connection: Any = Connection(address, connect_timeout=5)  # type: ignore[no-untyped-call]  # kombu has few types
        except ValueError:  # its text would repeat a part of the password
            raise ValueError("it cannot be read: write %2F for /, %3F for ? and %23 for # in the password") from None

    @functools.cached_property
    def _channel(self) -> Any:
        return self._connection.default_channel

    def count(self) -> int:
        """How many messages wait. Raises: NotFound."""
        return int(self._channel.queue_declare(self._name, passive=True).message_count)

    def held(self) -> Mapping[str, int]:
        """RabbitMQ gives back at once what a killed worker held."""
        return {}

    def begin(self) -> None:
        """Several may drain it at a time: none takes what another one has."""

    def look(self) -> None:
        """RabbitMQ shows no message that it does not give."""

    def take(self) -> Iterator[OldMessage]:
        """Take what waits now."""
        for _ in range(self.count()):
            message = self._channel.basic_get(self._name, no_ack=False)
            if message is None:
                return
            properties = message.properties
            yield OldMessage(
                body=message.body if isinstance(message.body, bytes) else str(message.body).encode(),
                headers=dict(properties.get("application_headers") or {}),
                properties=properties,
                content_type=properties.get("content_type") or "",
                content_encoding=properties.get("content_encoding") or "utf-8",
                priority=Priority.HIGH if properties.get("priority") else Priority.NORMAL,  # most send without one
                receipt=message.delivery_tag,
            )

    def moved(self, message: OldMessage) -> None:
        """Acknowledge it."""
        self._channel.basic_ack(message.receipt)

    def leave(self, message: OldMessage) -> None:
        """Hold it until `close`: given back now, it would be the next one that is taken."""

    def close(self) -> bool:
        """Give back what is held; RabbitMQ puts it where it was."""
        self._connection.release()
        return True
