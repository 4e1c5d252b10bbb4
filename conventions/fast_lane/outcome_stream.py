"""`OutcomeStream`: records the outcome of each job of a group before the next job begins, and does not wait for the server.

It reads the server's answers when the last job has ended. So the server works while the next job runs. And a process that is
killed leaves at most one job without a recorded outcome, not a whole group.
"""

from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

from redis.exceptions import RedisError

from conventions.execution.attempt import Attempt
from conventions.execution.runnable_task import RunnableTask
from conventions.execution.settle import success_of
from conventions.idempotency.claims import ClaimRequest, Claims, Settlement, settle_arguments, written
from conventions.storage.script_call import ScriptStream


class OutcomeStream:
    """Records the jobs of one group that succeed; see `Outcomes`.

    Args:
        claims: the claims that it settles.

    Attributes:
        at_once: whether an outcome is sent as soon as it is recorded. Otherwise it is sent in one call with the start of the next
            job. Then nothing between the two may take long.
        next_up: with `at_once`, the job that begins next; its start is sent in the same call.
    """

    may_be_followed = False

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._stream: ScriptStream = claims.store.stream("succeed", "settle", "short_start")
        self._recorded: list[Settlement] = []
        self._settled = 0  # how many of these `settle_again` has settled
        self._kept: Settlement | None = None  # the last outcome, until it is sent
        self._is_whole = False
        self._begun = ""  # token of the job whose start was sent with the last outcome
        self.at_once = False
        self.next_up: ClaimRequest | None = None

    @property
    def count(self) -> int:
        """How many outcomes were recorded."""
        return len(self._recorded)

    def succeeded(self, task: RunnableTask, job: Attempt, result: bytes | None) -> None:
        """Record that a job of the group has succeeded. It has no callbacks. Never raises."""
        self.record(success_of(task, job, result, keep=False), whole=job.reports)

    def record(self, settlement: Settlement, *, whole: bool = False) -> None:
        """Record a success. `whole`: the job has reported progress, so it needs the whole settle script. Never raises."""
        self.flush()
        self._recorded.append(settlement)
        self._kept = settlement
        self._is_whole = whole or settlement.join is not None  # its batch counts it
        if self.at_once:
            self._send_kept(self.next_up)

    def flush(self) -> None:
        """Send the outcome that is kept, if any. Never raises."""
        self._send_kept(None)

    def _send_kept(self, next_request: ClaimRequest | None) -> None:
        kept, self._kept = self._kept, None
        if kept is None:
            return
        if self._is_whole:
            self._send("settle", settle_arguments(kept, self._claims.store.entry_signatures))
            return
        event = kept.event.encode(self._claims.store.entry_signatures) if kept.event else b""
        begins = ("", "") if next_request is None else (next_request.claim, next_request.token)
        self._send("succeed", (kept.request.claim, kept.request.token, written(kept.result), event, *begins))
        self._begun = "" if next_request is None else next_request.token

    def begin(self, request: ClaimRequest | None) -> None:
        """Count the start of the next job. `None`: it is counted already, or no job starts. Never raises."""
        self._send_kept(request)
        if request is not None and request.token != self._begun:
            self._send("short_start", [request.claim, request.token])
        self._begun = ""

    def _send(self, script: str, arguments: Sequence[Any]) -> None:
        self._stream.send(self._claims.store.script(script), arguments)

    def settle_again(self) -> None:
        """Settle what was recorded so far with the whole script. Called by another thread.

        The short script leaves some outcomes as they were.

        Raises:
            RedisError: nobody knows whether it is recorded.
        """
        recorded = self._recorded[self._settled :]
        if recorded:
            replies = self._claims.store.run("short_outcomes_recorded", _in_hand(recorded))
            if left := [one for one, reply in zip(recorded, replies, strict=True) if reply != 1]:
                self._claims.settle(left)  # the same token gives the same answer again
            self._settled += len(recorded)

    def answers(self) -> list[tuple[Settlement, bool]]:
        """Each outcome, in order, and whether it is recorded. If it is not, or nobody knows, the caller settles it.

        This also removes the messages of the recorded ones.
        """
        self.flush()
        with closing(self._stream):
            try:
                replies = self._stream.finish(
                    self._claims.store.script("short_outcomes_recorded"), _in_hand(self._recorded)
                )
                recorded = [reply == 1 for reply in replies]
            except RedisError:
                recorded = [False] * len(self._recorded)
            if not all(recorded):
                with suppress(RedisError):
                    self._stream.load()
        return list(zip(self._recorded, recorded, strict=True))


def _in_hand(settlements: Sequence[Settlement]) -> list[str | bytes]:
    """The arguments of the script `short_outcomes_recorded`. They are shorter if all messages are of one queue, as nearly always."""
    requests = [one.request for one in settlements]
    queue = requests[0].held.queue if requests and requests[0].held is not None else ""
    for one in requests:
        if one.held is None or one.held.queue != queue or one.held.receipt != one.token:
            return ["", *(part for one in requests for part in (one.claim, one.token, *one.in_hand()))]
    return [queue, *(part for one in requests for part in (one.claim, one.token, one.in_hand()[0]))]
