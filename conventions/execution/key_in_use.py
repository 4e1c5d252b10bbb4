"""A message whose key is in use, where the broker is elsewhere: a copy of it waits, and looks again. On Redis `claim.lua` parks it."""

import logging
import random

from celery.exceptions import Ignore

from conventions.execution.attempt import Attempt
from conventions.execution.retry_message import publish_again
from conventions.execution.runnable_task import RunnableTask
from conventions.idempotency.claim_answers import Busy

logger = logging.getLogger(__name__)

LOOKS_FIRST = 0.5  # seconds before a copy looks for the first time
LOOKS_AT_MOST = 30.0  # seconds before it looks again


def park(task: RunnableTask, job: Attempt, busy: Busy) -> Exception:
    """Let a copy look again when the holder of the key may have ended. Returns what to raise."""
    # Soon at first, since most holders end within a second, then ever less often.
    wait = min(busy.wait, LOOKS_AT_MOST, LOOKS_FIRST * 2 ** min(job.parked, 10)) * random.uniform(1, 1.2)
    logger.info("parked: id=%s task=%s: its key is in use, looks again in %.1f s", job.id, job.task, wait)
    publish_again(task, job, countdown=wait, parked=job.parked + 1)
    done_with_this_copy: Exception = Ignore()
    return done_with_this_copy
