"""`BatchSweep`: sends the next message of a batch if the process that should have sent it has died."""

import logging
import random
from functools import partial
from typing import Any

from celery import bootsteps

from conventions.batches.application import BatchApplication
from conventions.core.background_rounds import Rounds
from conventions.core.errors import BrokerUnavailable
from conventions.core.outage import is_outage
from conventions.execution.batch_follow_up import send_next_message

logger = logging.getLogger(__name__)

LOOK_EVERY = 15.0  # seconds between two looks


class BatchSweep(bootsteps.StartStopStep):
    """A thread of the worker's main process that looks for batches whose `finish` was never sent."""

    def __init__(self, worker: Any, **options: Any) -> None:
        self._rounds = Rounds(
            "batches",
            partial(sweep, worker.app),
            lambda: LOOK_EVERY * random.uniform(0.9, 1.1),
            fault="batches that wait for their finish are not looked for",
            logger=logger,
        )
        super().__init__(worker, **options)

    def start(self, worker: Any) -> None:  # noqa: ARG002  # Celery's signature
        """Begin to look."""
        self._rounds.start()

    def stop(self, worker: Any) -> None:  # noqa: ARG002  # the same
        """Look no more."""
        self._rounds.stop()

    terminate = stop


def sweep(app: BatchApplication) -> int:
    """Send the missing next messages of batches. Returns how many batches waited. Raises: RedisError, BrokerUnavailable."""
    found = app.batches.closing()
    for batch_id in found:
        logger.info("what follows the batch %s has not ended yet; it is sent again, unless it is there", batch_id)
        try:
            send_next_message(app, batch_id)
        except Exception as error:
            if is_outage(error) or isinstance(error, BrokerUnavailable):
                raise
            logger.exception("what follows the batch %s cannot be sent", batch_id)  # the other batches must go on
    return len(found)
