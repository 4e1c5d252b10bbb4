"""`OutcomeStream`: records how the jobs of a group ended, each before the next one begins, without a wait for the server.

The server is asked when the last job has ended. So a process that is killed leaves one job whose outcome nobody knows, and
not a group of them, and the server works while the next job runs.
"""

from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

from redis.exceptions import RedisError

from conventions.execution.attempt import Job
from conventions.execution.settle import success_of
from conventions.idempotency.claims import ClaimRequest, Claims, Settlement, settle_arguments, written
from conventions.storage.script_call import ScriptStream


class OutcomeStream:
    """The successes of one group; see `Outcomes`.

    Args:
        claims: where they are recorded.

    Attributes:
        at_once: whether each is handed to the system as it is recorded. Else it goes with the start of the next job, in one call: so
            nothing that takes long may come between the two.
        next_up: the job that is about to begin then; its start goes with it.
    """

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._stream: ScriptStream = claims.store.stream("succeed", "settle", "start")
        self._recorded: list[Settlement] = []
        self._settled = 0  # of these, by `settle_again`
        self._kept: Settlement | None = None  # the last one, until it is handed over
        self._is_whole = False
        self._begun = ""  # token of a job whose start went with it
        self.at_once = False
        self.next_up: ClaimRequest | None = None

    @property
    def count(self) -> int:
        """How many outcomes were recorded."""
        return len(self._recorded)

    def succeeded(self, task: Any, job: Job, result: bytes | None) -> None:
        """A job of the group has succeeded; nothing follows it. Never raises."""
        self.record(success_of(task, job, result, keep=False), whole=job.reports)

    def record(self, settlement: Settlement, *, whole: bool = False) -> None:
        """A job has succeeded; `whole`: it has reported progress. Never raises."""
        self.flush()
        self._recorded.append(settlement)
        self._kept = settlement
        self._is_whole = whole or settlement.join is not None  # its batch counts it
        if self.at_once:
            self._hand_over(self.next_up)

    def flush(self) -> None:
        """Hand over what is recorded. Never raises."""
        self._hand_over(None)

    def _hand_over(self, next_request: ClaimRequest | None) -> None:
        kept, self._kept = self._kept, None
        if kept is None:
            return
        if self._is_whole:
            self._send("settle", settle_arguments(kept))
            return
        event = kept.event.encode() if kept.event else b""
        begins = ("", "") if next_request is None else (next_request.claim, next_request.token)
        self._send("succeed", (kept.request.claim, kept.request.token, written(kept.result), event, *begins))
        self._begun = "" if next_request is None else next_request.token

    def begin(self, request: ClaimRequest | None) -> None:
        """The next job begins, and its start is counted; `None`: it is counted already, or does not start. Never raises."""
        self._hand_over(request)
        if request is not None and request.token != self._begun:
            self._send("start", [request.claim, request.token])
        self._begun = ""

    def _send(self, script: str, arguments: Sequence[Any]) -> None:
        self._stream.send(self._claims.store.script(script), arguments)

    def settle_again(self) -> None:
        """End what was recorded so far, called by another thread: the short script may have left it.

        Raises:
            RedisError: it may be recorded or not.
        """
        recorded = self._recorded[self._settled :]
        if recorded:
            replies = self._claims.store.run("recorded", _in_hand(recorded))
            if left := [one for one, reply in zip(recorded, replies, strict=True) if reply != 1]:
                self._claims.settle(left)  # asked again with one token, it gives one answer
            self._settled += len(recorded)

    def answers(self) -> list[tuple[Settlement, bool]]:
        """Whether each outcome is recorded, in order; where not, or nobody knows, it is to be settled as any other.

        The messages of those that are recorded are removed.
        """
        self.flush()
        with closing(self._stream):
            try:
                replies = self._stream.finish(self._claims.store.script("recorded"), _in_hand(self._recorded))
                recorded = [reply == 1 for reply in replies]
            except RedisError:
                recorded = [False] * len(self._recorded)
            if not all(recorded):
                with suppress(RedisError):
                    self._stream.load()
        return list(zip(self._recorded, recorded, strict=True))


def _in_hand(settlements: Sequence[Settlement]) -> list[str | bytes]:
    """What `recorded` takes: in short where all are of one queue, as nearly always."""
    requests = [one.request for one in settlements]
    queue = requests[0].held.queue if requests and requests[0].held is not None else ""
    for one in requests:
        if one.held is None or one.held.queue != queue or one.held.receipt != one.token:
            return ["", *(part for one in requests for part in (one.claim, one.token, *one.in_hand()))]
    return [queue, *(part for one in requests for part in (one.claim, one.token, one.in_hand()[0]))]
