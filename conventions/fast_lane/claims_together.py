"""`AskedTogether`: the claims of jobs that go to a process together.

Nearly always nothing is known of any of them. So they are asked for in few words first, which costs the server half of what
`claim` takes; where one of them is known after all, nothing was done, and all are asked for as any other.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from conventions.idempotency.claim_answers import Answer, Granted
from conventions.idempotency.claims import ClaimRequest, Claims

BETWEEN = "\x1f"  # fields of such a claim: see `claims.lua`


class AskedTogether:
    """Claims that were asked for; of those that are granted, only the first starts now: see `Claims.ask`.

    Args:
        claims: all claims.
        requests: what is asked for.
        after: the job of the group that comes before the first.
    """

    def __init__(self, claims: Claims, requests: Sequence[ClaimRequest], after: ClaimRequest | None = None) -> None:
        self._claims, self._requests, self._after = claims, requests, after
        few = few_words(requests, claims.lease, after)
        self._is_short = few is not None
        self._call = (
            claims.ask(requests, together=True, after=after) if few is None else claims.store.call("claim_new", few)
        )

    def answers(self) -> Sequence[Answer]:
        """The answers, in the order of the requests. Raises: RedisError."""
        if not self._is_short:
            return self._claims.answers(self._call)
        fence = int(self._call.answer())
        if fence:
            return [Granted(fence, int(self._after is None)), *[Granted(fence, 0)] * (len(self._requests) - 1)]
        self._is_short, self._call = False, self._claims.ask(self._requests, together=True, after=self._after)
        return self._claims.answers(self._call)

    def close(self) -> None:
        """Forget a call whose answer nobody reads any more; the claims may be taken."""
        self._call.close()


def few_words(requests: Sequence[ClaimRequest], lease: float, after: ClaimRequest | None) -> list[Any] | None:
    """What `claim_new` takes; `None` where one of the messages takes more to say, or two are of one job."""
    if not requests or (after is not None and BETWEEN in after.key):
        return None
    start = requests[0].start
    arguments: list[Any] = [round(lease * 1000)]
    arguments += ["", "", ""] if after is None else [after.token, after.task, after.key]
    arguments.append(start)
    for task, run in groupby(requests, attrgetter("task")):
        jobs = list(run)
        if ":" in task or not all(_is_usual(one) and one.start == start for one in jobs):
            return None
        sent_at = min(one.sent_at for one in jobs if one.sent_at is not None).timestamp()
        arguments += [task, round(jobs[0].horizon.total_seconds() * 1000), round(sent_at * 1000), len(jobs)]
        for one in jobs:
            arguments += (one.key, one.message_id, one.fingerprint, one.token)
    return arguments if len({(one.task, one.key) for one in requests}) == len(requests) else None


def _is_usual(one: ClaimRequest) -> bool:
    held = one.held
    return (
        held is not None
        and held.tag == one.message_id
        and held.receipt == one.token
        and one.generation == 0
        and one.attempt == 1
        and one.sent_at is not None
        and BETWEEN not in one.key
        and BETWEEN not in one.message_id
        and BETWEEN not in one.fingerprint
    )
