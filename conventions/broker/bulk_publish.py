"""`PublishBatch`: messages that go to the broker together, by kombu's batch protocol (`Producer.batch`).

A flush that was not answered has an unknown outcome. It is sent again whole: a message that is there already stays one message,
and one that was handled meanwhile finds its claim.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from kombu.exceptions import BatchPublishError
from redis.exceptions import RedisError

from conventions.broker.redis_broker import Broker, Publication
from conventions.core.deadline import Deadline
from conventions.core.errors import BrokerUnavailable
from conventions.storage.redis_connections import telling
from conventions.storage.script_call import ScriptCall

BYTES_AT_ONCE = 4 << 20  # of one flush, beyond which it would hold up the server's other clients
RETRY_EVERY = 0.2  # seconds between two tries of a flush
RETRY_FOR = 3.0  # seconds, unless the application says otherwise


class NotTaken(BatchPublishError):
    """The broker did not take messages in time.

    Args:
        text: why.
        ids: of the messages.
        maybe_sent: whether they may be there.
    """

    def __init__(self, text: str, ids: Sequence[str], *, maybe_sent: bool) -> None:
        super().__init__(text)
        self.ids, self.maybe_sent = ids, maybe_sent


class UnderWay:
    """Messages that were sent, whose answer is not read yet; whoever sent them may do other work meanwhile.

    Args:
        broker: where they go.
        publications: the messages.
        patience: seconds that a broker which does not answer is tried.
    """

    def __init__(self, broker: Broker, publications: Sequence[Publication], patience: float) -> None:
        self._broker, self._publications, self._patience = broker, publications, patience
        self._call: ScriptCall | None = None
        with suppress(RedisError):  # then they are sent when the answer is wanted
            self._call = broker.ask_publish(publications)

    @property
    def ids(self) -> list[str]:
        """The tags of the messages, which are their ids."""
        return [one.tag for one in self._publications]

    @property
    def is_under_way(self) -> bool:
        """Whether they were handed over, and the answer is not read yet."""
        return self._call is not None and self._call.is_under_way

    def wait(self) -> None:
        """Return when the broker has all of them. Raises: NotTaken."""
        reason: Exception | None = None
        with Deadline(self._patience) as deadline:
            try:
                while True:
                    try:
                        if self._call is None:
                            self._broker.publish(self._publications)
                        else:
                            self._broker.published(self._call)
                    except (RedisError, BrokerUnavailable) as error:
                        reason = telling(error, reason)
                        if deadline.left < RETRY_EVERY:
                            raise NotTaken(str(reason), self.ids, maybe_sent=deadline.may_have_left) from reason
                        self.close()
                        time.sleep(RETRY_EVERY)
                    else:
                        return
            finally:
                self.close()

    def close(self) -> None:
        """Give the connection back; the messages may arrive."""
        call, self._call = self._call, None
        if call is not None:
            call.close()


class PublishBatch:
    """Messages of one channel that wait for their flush.

    Args:
        channel: the channel that they are published on; kombu compares it.
        max_size: messages in one flush.

    Attributes:
        last: the message that was published last, as kombu wrote it.
        last_publication: the same, as it goes to the broker.
    """

    last: dict[str, Any]
    last_publication: Publication

    def __init__(self, channel: Any, max_size: int) -> None:
        self.channel = channel
        self._max_size = max_size
        self._waiting: list[Publication] = []
        self._bytes = 0
        self._sent: UnderWay | None = None
        self._failed: BaseException | None = None
        self._discarded = False

    def publish(self, message: dict[str, Any], **options: Any) -> Any:
        """Route one message and keep it for the next flush. Raises: BatchPublishError, as `flush`."""
        self._check()
        self.last = message
        return self.channel.basic_publish(message, _publish_batch=self, **options)

    def add(self, publication: Publication) -> None:
        """Keep a message that is routed; sends those that wait when they are as many as one flush takes."""
        if self._waiting and self._bytes + len(publication.payload) > BYTES_AT_ONCE:
            self.push()
        self.last_publication = publication
        self._waiting.append(publication)
        self._bytes += len(publication.payload)
        if len(self._waiting) >= self._max_size:
            self.push()

    @property
    def waiting(self) -> int:
        """Messages that wait for the next flush."""
        return len(self._waiting)

    def push(self) -> None:
        """Send what waits, and go on: the answer is read at the next `push` or `flush`."""
        self._check()
        if not self._waiting:
            return
        self._await()
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        patience = getattr(getattr(self.channel.app, "settings", None), "broker_timeout", RETRY_FOR)
        self._sent = UnderWay(self.channel.broker, waiting, patience)

    def follow(self, before: UnderWay) -> None:
        """Send nothing before the broker has these: over two connections, the later ones might be the first to arrive."""
        self._sent = before

    def detach(self) -> UnderWay | None:
        """Send what waits; its answer is for the caller to read, when this batch and its channel are others' again."""
        self.push()
        if (
            self._sent is not None and not self._sent.is_under_way
        ):  # what cannot leave is tried now, before time goes on
            self._await()
        sent, self._sent = self._sent, None
        return sent

    def flush(self) -> None:
        """Send what waits, and return when the broker has all of it.

        Raises:
            NotTaken: it did not take what was sent last within `broker_timeout`.
        """
        self.push()
        self._await()

    def withdraw(self) -> list[Publication]:
        """Take back what waits; it is not sent."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        return waiting

    def discard(self) -> None:
        """Forget what waits; what is under way may arrive."""
        self._discarded = True
        self._waiting = []

    def close(self) -> None:
        """Give the connection back."""
        sent, self._sent = self._sent, None
        if sent is not None:
            sent.close()

    def _await(self) -> None:
        sent, self._sent = self._sent, None
        if sent is None:
            return
        try:
            sent.wait()
        except BaseException as error:
            self._failed = error
            raise

    def _check(self) -> None:
        if self._discarded:
            raise RuntimeError("these messages were discarded; begin another batch")
        if self._failed is not None:
            raise BatchPublishError("an earlier flush of this batch failed; begin another one") from self._failed
