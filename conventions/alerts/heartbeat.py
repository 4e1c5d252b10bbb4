"""`Heartbeat`: tells a service outside, once a minute, that alerts are judged; where it is silent, that service tells people (R14)."""

import logging
import time
from datetime import UTC, datetime

from conventions.alerts.receivers import NotDelivered, post

logger = logging.getLogger(__name__)

EVERY = 60.0  # seconds


class Heartbeat:
    """That of one process.

    Args:
        address: where it goes; `None`: nowhere.
        application: which one is judged.
    """

    def __init__(self, address: str | None, application: str) -> None:
        self._address, self._application = address, application
        self._next_at = 0.0

    def send_if_due(self) -> None:
        """Send it, once a minute at most. Raises nothing: one that does not arrive is in the log, and the next one follows."""
        if self._address is None or time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + EVERY
        try:
            post(self._address, {"application": self._application, "at": datetime.now(UTC).isoformat()})
        except NotDelivered as error:
            logger.warning("the heartbeat did not arrive: %s", error)
