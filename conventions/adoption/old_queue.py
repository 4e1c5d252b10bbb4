"""A queue of plain Celery: what is common to those in Redis and in RabbitMQ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from conventions.core.priority import Priority


@dataclass(frozen=True, slots=True)
class OldMessage:
    """A message that is taken, and not settled yet.

    Attributes:
        body: as it was sent, in its content encoding.
        priority: what its old priority means here.
        receipt: by which its queue knows it.
    """

    body: bytes
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    content_type: str
    content_encoding: str
    priority: Priority
    receipt: Any

    @property
    def task(self) -> str:
        """The name of its task; empty where it has none in its headers, as those of Celery 3."""
        found = self.headers.get("task")
        return found if isinstance(found, str) else ""

    @property
    def id(self) -> str:
        """Its id; empty where it has none."""
        found = self.headers.get("id")
        return found if isinstance(found, str) else ""


class OldQueue(Protocol):
    """Each message that it gives is settled by one of the two calls, or comes back when the connection ends.

    Attributes:
        place: its name and where it is, for people.
        leaves_aside: whether a drain that is killed leaves messages where no worker sees them, until the next drain.
    """

    place: str
    leaves_aside: bool

    def count(self) -> int:
        """How many messages wait."""

    def held(self) -> Mapping[str, int]:
        """How many messages workers hold, living ones and killed ones: of this queue under its name, others under what they were sent by.

        Empty where this broker does not tell.
        """

    def look(self) -> Iterator[OldMessage] | None:
        """The messages that wait, none of which is taken; `None`: this broker cannot look into a queue."""

    def begin(self) -> None:
        """Begin to drain. Raises: ConfigurationError, while another drain does."""

    def take(self) -> Iterator[OldMessage]:
        """Take the messages that wait now, the oldest first. Raises: RedisError, OSError, AMQPError."""

    def moved(self, message: OldMessage) -> None:
        """Forget a message, which is in another queue now."""

    def leave(self, message: OldMessage) -> None:
        """Let a message wait on."""

    def close(self) -> bool:
        """Give back what is not settled. False: it cannot, since another drain may hold it, or there may be none: the next one finds it."""
