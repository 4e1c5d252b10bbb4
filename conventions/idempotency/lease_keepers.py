"""`LeaseKeeper` renews the claims that this process runs, from one thread; `PageKeeper` those of the processes of a pool."""

import logging
import threading
import time
from collections.abc import Callable

from conventions.core.background_rounds import Rounds
from conventions.core.halve_failing_call import apart
from conventions.core.lease_timings import USUAL
from conventions.idempotency.claims import ClaimRequest, Claims
from conventions.idempotency.shared_memory import Pages

logger = logging.getLogger(__name__)


class LeaseKeeper:
    """Holds leases while jobs run. A job that is `stalled()` is not renewed, so that its claim lapses.

    Args:
        claims: all claims.
        every: seconds between two renewals.
    """

    def __init__(self, claims: Claims, *, every: float) -> None:
        self._claims = claims
        self._rounds = Rounds("leases", self._renew, every, fault="leases were not renewed", logger=logger)
        self._held: dict[Holding, tuple[ClaimRequest, Callable[[], bool]]] = {}
        self._lock = threading.Lock()

    def holding(self, request: ClaimRequest, stalled: Callable[[], bool]) -> "Holding":
        """Renew this claim until the block ends."""
        return Holding(self, request, stalled)

    def hold(self, holding: "Holding") -> None:
        """Begin to renew a claim."""
        with self._lock:
            self._held[holding] = holding.request, holding.stalled
        self._rounds.start()  # also in a process of the pool, which was forked meanwhile

    def let_go(self, holding: "Holding") -> None:
        """Renew it no more."""
        with self._lock:
            self._held.pop(holding, None)

    def held(self) -> list[ClaimRequest]:
        """The claims that are renewed now: those of the jobs that run in this process."""
        with self._lock:
            return [request for request, _ in self._held.values()]

    def hangs(self, token: str) -> bool:
        """Whether the job of this delivery runs here, and has made no progress for too long."""
        with self._lock:
            return any(one.token == token and stalled() for one, stalled in self._held.values())

    def _renew(self) -> None:
        """Renew all that make progress. Raises: RedisError; a lease outlasts several misses."""
        with self._lock:
            held = list(self._held.values())
        alive = [request for request, stalled in held if not _is(stalled)]
        for request, answer in zip(alive, apart(self._claims.renew, alive) if alive else (), strict=True):
            if isinstance(answer, Exception):
                logger.error("the lease of %r was not renewed: %s", request.message_id, answer)


def _is(stalled: Callable[[], bool]) -> bool:
    try:
        return stalled()
    except Exception:  # the thread renews all other leases
        logger.exception("whether a job makes progress cannot be told: its lease is renewed")
        return False


class Holding:
    """A claim that is renewed within a block. Compared by identity: a request would be hashed for each job, all its fields."""

    __slots__ = ("_keeper", "request", "stalled")

    def __init__(self, keeper: LeaseKeeper, request: ClaimRequest, stalled: Callable[[], bool]) -> None:
        self._keeper, self.request, self.stalled = keeper, request, stalled

    def __enter__(self) -> None:
        """Begin."""
        self._keeper.hold(self)

    def __exit__(self, *_: object) -> None:
        """End."""
        self._keeper.let_go(self)


class PageKeeper:
    """Renews, in the main process of a worker, the claims of the jobs that its processes run.

    Args:
        claims: all claims.
        pages: what the processes do.
        has_ended: whether a process is there no more.
        every: seconds between two renewals.
        retry_after: seconds after which it tries again where Redis did not answer.
    """

    def __init__(
        self,
        claims: Claims,
        pages: Pages,
        has_ended: Callable[[int], bool],
        *,
        every: float,
        retry_after: float = USUAL.retry_after,
    ) -> None:
        self._claims, self._pages, self._has_ended = claims, pages, has_ended
        self.every, self._retry_after = every, min(retry_after, every)
        self.next_at = time.monotonic() + every
        """When it is time to renew. The thread of `broker/in_flight.py` asks: it has the other heartbeats, too."""

    def begin(self) -> None:
        """The thread begins: the first renewal is `every` from now."""
        self.next_at = time.monotonic() + self.every

    def renew_if_due(self) -> None:
        """Renew if it is time. Never raises: a lease outlasts several failed renewals."""
        if time.monotonic() < self.next_at:
            return
        self.next_at = time.monotonic() + self.every
        try:
            self.renew()
        except Exception as error:  # noqa: BLE001  # the thread lives, and tries again
            logger.warning("leases were not renewed, trying again: %s", error)
            self.next_at = time.monotonic() + self._retry_after

    def renew(self) -> None:
        """Renew all that are to live on. Raises: RedisError."""
        alive = [one for one in self._pages.look() if one.is_renewed() and not self._has_ended(one.process)]
        for one, answer in zip(alive, apart(self._claims.renew, alive) if alive else (), strict=True):
            if isinstance(answer, Exception):
                logger.error("the lease of %r was not renewed: %s", one.claim, answer)
