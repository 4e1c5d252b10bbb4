"""`OutcomeStream`: records how the jobs of a group ended, each as it ends, without a wait for the server.

The server is asked when the last job has ended. So a process that is killed leaves one job whose outcome nobody knows, and
not a group of them, and the server works while the next job runs.
"""

from collections.abc import Callable
from contextlib import closing, suppress

from redis.exceptions import RedisError

from conventions.idempotency.claims import ClaimRequest, Claims, Settlement


class OutcomeStream:
    """The successes of one group.

    Args:
        claims: where they are recorded.
        take_next: says which job begins, if one is ready, with the outcome that is recorded now.
    """

    def __init__(self, claims: Claims, take_next: Callable[[], ClaimRequest | None]) -> None:
        self._claims, self._stream = claims, claims.stream()
        self._take_next = take_next
        self._recorded: list[Settlement] = []
        self._settled = 0  # of these, by `settle_again`

    @property
    def count(self) -> int:
        """How many outcomes were recorded."""
        return len(self._recorded)

    def record(self, settlement: Settlement, *, whole: bool = False) -> None:
        """A job has succeeded; `whole`: it has reported progress."""
        begins = self._take_next()
        self._recorded.append(settlement)
        self._claims.send(self._stream, settlement, begins, whole=whole)

    def begin(self, request: ClaimRequest) -> None:
        """A job begins after one that has not succeeded."""
        self._claims.begin(self._stream, request)

    def settle_again(self) -> None:
        """End what was recorded so far, called by another thread: the short script may have left it.

        Raises:
            RedisError: it may be recorded or not.
        """
        recorded = self._recorded[self._settled :]
        if recorded:
            answers = self._claims.recorded([one.request for one in recorded])
            if left := [one for one, is_recorded in zip(recorded, answers, strict=True) if not is_recorded]:
                self._claims.settle(left)  # asked again with one token, it gives one answer
            self._settled += len(recorded)

    def answers(self) -> list[tuple[Settlement, bool]]:
        """Whether each outcome is recorded, in order; where not, or nobody knows, it is to be settled as any other."""
        with closing(self._stream):
            try:
                recorded = self._claims.recorded([one.request for one in self._recorded], self._stream)
            except RedisError:
                recorded = [False] * len(self._recorded)
            if not all(recorded):
                with suppress(RedisError):
                    self._stream.load()
        return list(zip(self._recorded, recorded, strict=True))
