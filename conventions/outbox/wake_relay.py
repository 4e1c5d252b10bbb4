"""The nudge: a commit tells the relay at once that there are rows. Without it the relay looks every few seconds."""

import logging
import time

from conventions.core.deadline import Deadline
from conventions.execution.application import Application
from conventions.storage.redis_store import Store

logger = logging.getLogger(__name__)

WITHIN = 0.2  # seconds that a commit may wait for Redis here
KEEP = 60  # seconds: a nudge that nobody takes
SILENT_FOR = 5.0  # seconds after a Redis that did not answer: no other commit waits for it

_silent_until: dict[str, float] = {}  # by server and application


def nudge(app: Application) -> None:
    """Tell the relay. It never fails: the rows are committed, and will be found."""
    place = ""
    try:
        store = app.store
        key, place = store.key("outbox"), f"{store.url} {store.prefix}"
        if time.monotonic() < _silent_until.get(place, 0.0):
            return
        with Deadline(WITHIN), store.redis.pipeline(transaction=False) as pipe:
            pipe.lpush(key, 1)
            pipe.ltrim(key, 0, 0)
            pipe.expire(key, KEEP)
            pipe.execute()
    except Exception as error:  # noqa: BLE001  # also where no broker is set: whoever called has committed
        _silent_until[place] = time.monotonic() + SILENT_FOR
        logger.debug("the relay is not told of new rows: %s", error)


def wait_for_nudge(store: Store, seconds: float) -> bool:
    """Wait for a nudge. Returns whether one came. Raises: RedisError."""
    return store.redis.blpop([store.key("outbox")], timeout=seconds) is not None
