"""What kombu and py-amqp do not document. What our transport overrides of kombu's stands in `transport/`, and has a seam test, too."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

from kombu import exceptions, pools
from kombu.connection import ConnectionPool, PooledConnection

__all__ = ["BatchPublishError", "ConnectionPool", "PooledConnection"]

if TYPE_CHECKING:
    BatchPublishError = exceptions.KombuError
else:
    BatchPublishError = getattr(exceptions, "BatchPublishError", exceptions.KombuError)  # kombu has it since 5.7

KOMBU_TYPE = b'"__type__"'  # kombu writes a value that JSON does not know as a mapping with this key


def parameters_of(connection: Any) -> dict[str, Any]:
    """What another connection to the same servers is made with; the address keeps its scheme."""
    return dict(connection._info(resolve=False))  # noqa: SLF001


def reader_of(transport: Any, connection: Any) -> Any:
    """What kombu's event loop calls when a connection has something to read."""
    return transport._make_reader(connection)  # noqa: SLF001


def publish_batch(producer: Any, most: int) -> AbstractContextManager[Any]:
    """Let our channel collect what a producer publishes within the block, `most` messages in one flush.

    At the end of the block all is flushed; after an error what waits is dropped.
    """
    found: AbstractContextManager[Any] = (
        producer.batch(most) if hasattr(producer, "batch") else _BatchOfEarlierKombu(producer, most)
    )
    return found


def publish_batch_of(batch: Any) -> Any:
    """What our channel has made for such a block, once it has published something."""
    return batch.state.session


class _BatchOfEarlierKombu:
    """`Producer.batch` for kombu 5.6, which has none: the channel hands what is published to the batch that it has made."""

    def __init__(self, producer: Any, most: int) -> None:
        self._producer, self._most = producer, most
        self._channel: Any = None
        self.session: Any = None

    @property
    def state(self) -> Self:
        """As kombu's has it."""
        return self

    def flush(self) -> None:
        """Send what waits. Raises: what that does."""
        if self.session is not None:
            self.session.flush()

    def __enter__(self) -> Self:
        publish = self._producer._publish  # noqa: SLF001

        def first(*args: Any, **options: Any) -> Any:  # only now is there a connection
            self._collect(self._producer.channel)
            return publish(*args, **options)

        self._producer._publish = first  # noqa: SLF001
        return self

    def _collect(self, channel: Any) -> None:
        if self._channel is not None:
            return
        send, self._channel = channel.basic_publish, channel
        self.session = session = channel.create_publish_batch(max_size=self._most)

        def collect(message: Any, **options: Any) -> Any:
            return send(message, **options) if "_publish_batch" in options else session.publish(message, **options)

        channel.basic_publish = collect

    def __exit__(self, kind: object, *_: object) -> None:
        del self._producer._publish  # noqa: SLF001
        if self._channel is not None:
            del self._channel.basic_publish
        if self.session is None:
            return
        try:
            if kind is None:
                self.session.flush()
            else:
                self.session.discard()
        finally:
            self.session.close()


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
