"""`LeaseKeeper`: renews the claims that this process runs, from one thread."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from conventions.idempotency import ClaimRequest, Claims

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 6  # a 30 s lease is renewed every 5 s, so that several renewals may fail


class LeaseKeeper:
    """Holds leases while jobs run. A job that is `stalled()` is not renewed, so that its claim lapses."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._held: dict[object, tuple[ClaimRequest, Callable[[], bool]]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def holding(self, request: ClaimRequest, stalled: Callable[[], bool]) -> Iterator[None]:
        """Renew this claim until the block ends."""
        place = object()  # a request as the key would be hashed twice for each job, all its fields
        with self._lock:
            self._held[place] = request, stalled
            if self._thread is None or not self._thread.is_alive():
                # Daemon: it must not keep a pool process from ending.
                self._thread = threading.Thread(target=self._renew_for_ever, name="leases", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(place, None)

    def _renew_for_ever(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._claims.lease / RENEWALS_PER_LEASE):
            with self._lock:
                alive = [request for request, stalled in self._held.values() if not stalled()]
            if not alive:
                continue
            try:
                self._claims.renew(alive)
            except RedisError as error:  # the lease outlasts several misses; the next turn tries again
                logger.warning("leases of %d jobs were not renewed: %s", len(alive), error)
