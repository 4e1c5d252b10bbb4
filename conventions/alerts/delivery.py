"""`Delivery`: sends what is to be told to each receiver, and tries again where one has failed (R14)."""

import logging
import time
from collections.abc import Mapping

from conventions.alerts.alert_store import AlertStore, Waiting
from conventions.alerts.receivers import NotDelivered, Receiver

logger = logging.getLogger(__name__)

GIVEN_UP_AFTER = 12  # tries
LONGEST_PAUSE = 600.0  # seconds between two tries


class Delivery:
    """The messages of one application, while its process leads.

    Args:
        store: has what is to be told.
        receivers: who is told, by name.
    """

    def __init__(self, store: AlertStore, receivers: Mapping[str, Receiver]) -> None:
        self._store, self._receivers = store, receivers

    def send_due(self) -> int:
        """Send what is due. Returns how many messages arrived. Raises: RedisError.

        A receiver that has failed is not asked again in this round: the others need not wait for its time-outs.
        """
        arrived, failed, now = 0, set[str](), time.time()
        for one in self._store.to_send(now):
            if one.message.receiver in failed:
                self._put_off(one, "it has just failed", now)
            elif self._send(one, now):
                arrived += 1
            else:
                failed.add(one.message.receiver)
        return arrived

    def _send(self, one: Waiting, now: float) -> bool:
        message = one.message
        receiver = self._receivers.get(message.receiver)
        if receiver is None:  # of settings that have changed since
            self._store.sent(message)
            self._store.accept(message.receiver)
            return False
        try:
            receiver(message.body)
        except Exception as error:  # noqa: BLE001  # whatever a receiver raises, the others are told
            why = str(error) if isinstance(error, NotDelivered) else type(error).__name__
            self._store.refuse(message.receiver, why, time.time())
            self._put_off(one, why, now)
            return False
        self._store.sent(message)
        self._store.accept(message.receiver)
        return True

    def _put_off(self, one: Waiting, why: str, now: float) -> None:
        # another message was, and this one comes before it: it has lost no try
        if not one.is_due(now):
            return
        message, tries = one.message, one.message.tries + 1
        if tries >= GIVEN_UP_AFTER:
            logger.error("alert not delivered to %s after %d tries, given up: %s", message.receiver, tries, why)
            self._store.sent(message)
            return
        if self._store.again(one, tries, time.time() + min(2.0**tries, LONGEST_PAUSE)):
            logger.warning("alert not delivered to %s, trying again: %s", message.receiver, why)
