"""`AskedTogether`: the claims of the jobs of a group, in one call.

Nearly always Redis knows none of these keys. So the call tries the short script `claim_new` first, which costs the server half
of what `claim` costs. If Redis knows one of the keys, `claim_new` changes nothing, and the script `claim` is called for all.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from conventions.idempotency.claim_answers import Answer, Granted
from conventions.idempotency.claims import ClaimRequest, Claims

BETWEEN = "\x1f"  # separates the fields in the value of a new claim: see `claims.lua`


class AskedTogether:
    """A call that asks for several claims. Only the first job that is granted counts as started: see `Claims.ask`.

    Args:
        claims: the claims of the application.
        requests: the claims to ask for.
        after: the job of the group that runs before the first of these.
    """

    def __init__(self, claims: Claims, requests: Sequence[ClaimRequest], after: ClaimRequest | None = None) -> None:
        self._claims, self._requests, self._after = claims, requests, after
        short = short_arguments(requests, claims.lease, after)
        self._is_short = short is not None
        self._call = (
            claims.ask(requests, together=True, after=after) if short is None else claims.store.call("claim_new", short)
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
        """Drop the answer. The claims may have been granted all the same."""
        self._call.close()


def short_arguments(requests: Sequence[ClaimRequest], lease: float, after: ClaimRequest | None) -> list[Any] | None:
    """The arguments of `claim_new`. `None` if it cannot express one of the requests, or if two requests are of one key."""
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
