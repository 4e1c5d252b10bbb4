"""What kombu and py-amqp do not document. What our transport overrides of kombu's stands in `transport/`, and has a seam test, too."""

from typing import Any

from kombu import pools
from kombu.connection import ConnectionPool, PooledConnection

__all__ = ["ConnectionPool", "PooledConnection"]

KOMBU_TYPE = b'"__type__"'  # kombu writes a value that JSON does not know as a mapping with this key


def parameters_of(connection: Any) -> dict[str, Any]:
    """What another connection to the same servers is made with; the address keeps its scheme."""
    return dict(connection._info(resolve=False))  # noqa: SLF001


def reader_of(transport: Any, connection: Any) -> Any:
    """What kombu's event loop calls when a connection has something to read."""
    return transport._make_reader(connection)  # noqa: SLF001


def as_decoded(message: Any, value: Any) -> None:
    """Let kombu take this for the decoded body of a message."""
    message._decoded_cache = value  # noqa: SLF001


def publish_batch_of(batch: Any) -> Any:
    """What our channel has made for a block `with producer.batch(...) as batch`."""
    return batch.state.session


def forget_connections() -> None:
    """Let no connection of the parent be used in this process."""
    pools.connections.clear()
    pools.producers.clear()


def is_refusal(error: BaseException | None) -> bool:
    """Whether RabbitMQ says that it does not take a message. Its class is only there where RabbitMQ is used."""
    return type(error).__name__ == "MessageNacked"


def hand_over(transport: Any, message: dict[str, Any], queue: str) -> None:
    """Give a message to whoever consumes from its queue. Raises: what that does."""
    transport._deliver(message, queue)  # noqa: SLF001
