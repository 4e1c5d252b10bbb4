"""A worker warns in its log when events wait for long to be recorded in SQL."""

import logging
import time
from contextlib import suppress

from redis.exceptions import RedisError

from conventions.records.journal import LATE_AFTER, Journal
from conventions.storage.redis_store import Store

logger = logging.getLogger(__name__)

LATE = LATE_AFTER
LAG_EVERY = 10.0  # seconds between two looks at the age of the oldest event
TELL_EVERY = 60.0  # seconds between two log lines about it


class LagWarning:
    """Looks at the age of the oldest event, and says in the log when it is late."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next_look = self._next_tell = 0.0

    def look(self) -> None:
        """Log a warning if events wait for too long. The recorder's own log says why, if a recorder runs."""
        now = time.monotonic()
        if now < max(self._next_look, self._next_tell):
            return
        self._next_look = now + LAG_EVERY
        with suppress(RedisError):  # without Redis there are no events to record
            if fault := Journal(self._store).fault(LATE):
                self._next_tell = now + TELL_EVERY
                logger.warning("%s", fault)
