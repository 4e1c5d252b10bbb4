"""`HungJobs`: ends jobs that hang, where messages and claims are in two servers.

Where they are in one, the heartbeat of a message tells that the lease of its claim is over; see `InFlight`.
"""

import logging
import threading
from typing import Protocol

from conventions.core.background_rounds import Rounds
from conventions.core.outage import is_outage

logger = logging.getLogger(__name__)


class Watched(Protocol):
    """A job that runs in this worker; `Request` is one."""

    token: str

    @property
    def claim(self) -> str:
        """The name of its claim."""

    def has_lapsed(self) -> bool:
        """Whether the lease of its claim is over. Raises: RedisError."""

    def on_lapsed(self) -> bool:
        """End it, if it stands still. Returns whether it was ended."""


class HungJobs:
    """Those of one worker.

    Args:
        every: seconds between two looks.
    """

    def __init__(self, *, every: float) -> None:
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

    def claims(self) -> dict[str, str]:
        """The claims of those that run now, by token."""
        with self._lock:
            watched = list(self._watched.values())
        return {job.token: job.claim for job in watched}

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
