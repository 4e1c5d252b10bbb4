"""`PublishBatch`: messages that go to the broker together, by kombu's batch protocol (`Producer.batch`).

A flush that failed has an unknown outcome. It is sent again whole: a message that is there already stays one message,
and one that was handled meanwhile finds its claim.
"""

import time
from contextlib import suppress
from typing import Any

from kombu.exceptions import BatchPublishError
from redis.exceptions import RedisError

from conventions.broker import Publication
from conventions.script_call import ScriptCall

BYTES_AT_ONCE = 4 << 20  # of one flush, beyond which it would hold up the server's other clients
RETRY_EVERY = 0.2  # seconds between two tries of a flush
RETRY_FOR = 3.0  # seconds, unless the application says otherwise


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
        self._sent: list[Publication] = []
        self._call: ScriptCall | None = None
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
        self._sent, self._waiting, self._bytes = self._waiting, [], 0
        with suppress(RedisError):  # then it is sent when its answer is wanted
            self._call = self.channel.broker.ask_publish(self._sent)

    def flush(self) -> None:
        """Send what waits, and return when the broker has all of it.

        Raises:
            BatchPublishError: it did not answer within `broker_timeout`; what was sent last may be there or not.
            BrokerUnavailable: it is full.
        """
        self.push()
        self._await()

    def discard(self) -> None:
        """Forget what waits; what is under way may arrive."""
        self._discarded = True
        self._waiting = []

    def close(self) -> None:
        """Give the connection back."""
        call, self._call = self._call, None
        if call is not None:
            call.close()

    def _await(self) -> None:
        if not self._sent:
            return
        try:
            self._read()
        except BaseException as error:
            self._failed = error
            raise
        finally:
            self._sent = []
            self.close()

    def _read(self) -> None:
        broker = self.channel.broker
        deadline = time.monotonic() + getattr(getattr(self.channel.app, "settings", None), "broker_timeout", RETRY_FOR)
        while True:
            try:
                if self._call is None:
                    broker.publish(self._sent)
                else:
                    broker.published(self._call)
            except RedisError as error:
                if time.monotonic() + RETRY_EVERY > deadline:
                    raise BatchPublishError(f"the broker does not answer: {error}") from error
                self.close()
                time.sleep(RETRY_EVERY)
            else:
                return

    def _check(self) -> None:
        if self._discarded:
            raise RuntimeError("these messages were discarded; begin another batch")
        if self._failed is not None:
            raise BatchPublishError("an earlier flush of this batch failed; begin another one") from self._failed
