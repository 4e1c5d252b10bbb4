"""`HungJobs`: ends jobs that hang, where messages and claims are in two servers, and releases the claims of those that a stop cuts off.

Where they are in one, the heartbeat of a message tells that the lease of its claim is over, and its return releases the claim; see `InFlight`.
"""

import logging
import threading
from collections.abc import Iterable
from typing import Protocol

from conventions.core.background_rounds import Rounds
from conventions.core.deadline import Deadline
from conventions.core.halve_failing_call import is_outage

logger = logging.getLogger(__name__)

RELEASED_WITHIN = 5.0  # seconds that Redis has to release the claims of a worker that ends


class Watched(Protocol):
    """A job that runs in this worker; `Request` is one."""

    token: str

    def has_lapsed(self) -> bool:
        """Whether the lease of its claim is over. Raises: RedisError."""

    def on_lapsed(self) -> bool:
        """End it, if it stands still. Returns whether it was ended."""

    def release_uncounted(self, why: str, /) -> None:
        """Release its claim, with no start counted; `why` it does not end here. Raises: RedisError."""


class HungJobs:
    """Those of one worker.

    Args:
        every: seconds between two looks.

    Attributes:
        are_seized: whether this worker ends now: how its jobs end is recorded by `release_seized` alone.
    """

    def __init__(self, *, every: float) -> None:
        self.are_seized = False
        self._lock = threading.Lock()
        self._watched: dict[str, Watched] = {}
        fault = "whether jobs hang is not known now"
        self._rounds = Rounds("hung jobs", self._look, every, fault=fault, logger=logger)

    def watch(self, job: Watched) -> None:
        """A job begins."""
        with self._lock:
            self._watched[job.token] = job
        self._rounds.start()

    def forget(self, job: Watched) -> None:
        """A job has ended, or its message goes back."""
        if self._watched:  # else all are told of by heartbeats
            with self._lock:
                self._watched.pop(job.token, None)

    def seize(self) -> list[Watched]:
        """Take all jobs away from the other threads, for a process that ends now."""
        self.are_seized = True
        with self._lock:
            seized = list(self._watched.values())
            self._watched.clear()
        return seized

    @staticmethod
    def release_seized(jobs: Iterable[Watched], why: str) -> None:
        """Release the claims of seized jobs, which run no more. No start is counted. What Redis does not take now ends with its lease."""
        with Deadline(RELEASED_WITHIN):
            for job in jobs:
                try:
                    job.release_uncounted(why)
                except Exception as error:
                    if is_outage(error):
                        logger.warning("claims are not released, and end with their leases: %s", error)
                        return
                    logger.exception("the claim of a job is not released, and ends with its lease: token=%s", job.token)

    def _look(self) -> None:
        """End those that hang. Raises: RedisError."""
        with self._lock:
            watched = list(self._watched.values())
        for job in watched:
            try:
                if job.has_lapsed() and job.on_lapsed():
                    self.forget(job)
            except Exception as error:
                if is_outage(error):
                    raise
                logger.exception("whether a job hangs cannot be told: token=%s", job.token)
