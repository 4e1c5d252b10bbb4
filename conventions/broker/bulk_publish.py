"""`PublishBatch`: messages that go to the broker together, by kombu's batch protocol (`Producer.batch`).

A flush without an answer has an unknown outcome, so the whole flush is sent again. A message that is already there
stays one
message. A message that was handled in the meantime finds its claim.
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

PART = 500  # messages that a sender gives to one batch
PART_BYTES = 4 << 20  # of their arguments
BYTES_AT_ONCE = 4 << 20  # of one flush; a larger one would delay the server's other clients
RETRY_EVERY = 0.2  # seconds between two tries of a flush
RETRY_FOR = 3.0  # seconds, unless the application says otherwise


class NotTaken(BatchPublishError):
    """The broker did not accept messages in time.

    Args:
        text: why.
        ids: the ids of the messages.
        maybe_sent: whether the broker may have them.
    """

    def __init__(self, text: str, ids: Sequence[str], *, maybe_sent: bool) -> None:
        super().__init__(text)
        self.ids, self.maybe_sent = ids, maybe_sent


class UnderWay:
    """Messages that were sent, with the answer still unread. The sender may do other work meanwhile.

    Args:
        broker: where they go.
        publications: the messages.
        patience: how many seconds to retry a broker that does not answer.
    """

    def __init__(self, broker: Broker, publications: Sequence[Publication], patience: float) -> None:
        self._broker, self._publications, self._patience = broker, publications, patience
        self._call: ScriptCall | None = None
        with suppress(RedisError):  # `wait` will send them
            self._call = broker.ask_publish(publications)

    @property
    def ids(self) -> list[str]:
        """The tags of the messages, which are their ids."""
        return [one.tag for one in self._publications]

    @property
    def is_under_way(self) -> bool:
        """Whether the messages were handed over, and the answer is not read yet."""
        return self._call is not None and self._call.is_under_way

    def wait(self) -> None:
        """Wait until the broker has all of them. Raises: NotTaken."""
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
        """Return the connection. The messages may still arrive."""
        call, self._call = self._call, None
        if call is not None:
            call.close()


class PublishBatch:
    """Messages of one channel that wait for their flush.

    Args:
        channel: the channel that they are published on; kombu compares it.
        max_size: messages in one flush.

    Attributes:
        last: the last published message, as kombu wrote it.
        last_publication: the last published message, in the form for the broker.
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
        """Keep a routed message. When a flush is full, send the waiting messages."""
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
        """Send the waiting messages and go on. The next `push` or `flush` reads the answer."""
        self._check()
        if not self._waiting:
            return
        patience = getattr(getattr(self.channel.app, "settings", None), "broker_timeout", RETRY_FOR)
        with Deadline(patience):
            self._await()
            waiting, self._waiting, self._bytes = self._waiting, [], 0
            self._sent = UnderWay(self.channel.broker, waiting, patience)

    def send_after(self, before: UnderWay) -> None:
        """Send nothing before the broker has these messages. Over two connections the later ones might arrive first."""
        self._sent = before

    def detach(self) -> UnderWay | None:
        """Send the waiting messages. The caller reads the answer later, when this batch and its channel are in other use."""
        self.push()
        if (
            self._sent is not None and not self._sent.is_under_way
        ):  # the send failed: retry now, while the deadline is still far
            self._await()
        sent, self._sent = self._sent, None
        return sent

    def flush(self) -> None:
        """Send the waiting messages, and return when the broker has all of them.

        Raises:
            NotTaken: the broker did not accept the last ones within `broker_timeout`.
        """
        self.push()
        self._await()

    def withdraw(self) -> list[Publication]:
        """Take back the waiting messages; they are not sent."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        return waiting

    def discard(self) -> None:
        """Drop the waiting messages. Messages under way may still arrive."""
        self._discarded = True
        self._waiting = []

    def close(self) -> None:
        """Return the connection."""
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
