"""`BatchSweep`: sends the next message of a batch if the process that should have sent it has died."""

import logging
import random
import threading
from typing import Any

from celery import bootsteps
from redis.exceptions import RedisError

from conventions.batches.application import BatchApplication
from conventions.core.apart import is_outage
from conventions.core.errors import BrokerUnavailable
from conventions.execution.batch_follow_up import send_what_follows

logger = logging.getLogger(__name__)

LOOK_EVERY = 15.0  # seconds between two looks


class BatchSweep(bootsteps.StartStopStep):
    """A thread of the worker's main process that looks for batches whose `finish` was never sent."""

    def __init__(self, worker: Any, **options: Any) -> None:
        self._app = worker.app
        self._ended = threading.Event()
        super().__init__(worker, **options)

    def start(self, worker: Any) -> None:  # noqa: ARG002  # Celery's signature
        """Start the thread."""
        # A daemon thread does not delay the end of the worker.
        threading.Thread(target=self._run, name="batches", daemon=True).start()

    def stop(self, worker: Any) -> None:  # noqa: ARG002  # Celery's signature
        """End the thread."""
        self._ended.set()

    terminate = stop

    def _run(self) -> None:
        while not self._ended.wait(LOOK_EVERY * random.uniform(0.9, 1.1)):
            try:
                sweep(self._app)
            except (RedisError, BrokerUnavailable) as error:
                logger.warning("batches that wait for their finish: %s; looking again", error)
            except Exception:  # the thread must live
                logger.exception("batches that wait for their finish: a fault of the platform")


def sweep(app: BatchApplication) -> int:
    """Send the missing next messages of batches. Returns how many batches waited. Raises: RedisError, BrokerUnavailable."""
    found = app.batches.closing()
    for batch_id in found:
        logger.info("what follows the batch %s has not ended yet; it is sent again, unless it is there", batch_id)
        try:
            send_what_follows(app, batch_id)
        except Exception as error:
            if is_outage(error) or isinstance(error, BrokerUnavailable):
                raise
            logger.exception("what follows the batch %s cannot be sent", batch_id)  # the other batches must go on
    return len(found)
