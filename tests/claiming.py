"""Requests for one job, and what the tests of claims do with them."""

from dataclasses import replace
from typing import Any

from conventions.idempotency import (
    Answer,
    ClaimRequest,
    Claims,
    Granted,
    Settlement,
)
from tests.support import wait_until

FIRST = ClaimRequest("Task", "key", token="t1", message_id="m1", fingerprint="f")
OTHER = replace(FIRST, token="t2", message_id="m2")
"""Another message of the same job."""
AGAIN = replace(FIRST, token="t1-again")
"""The same message, delivered once more."""


def take(claims: Claims, request: ClaimRequest) -> Answer:
    """Ask for one claim."""
    (answer,) = claims.take([request])
    return answer


def settle(claims: Claims, request: ClaimRequest, state: Any = "done", result: Any = None, wait: float = 0) -> bool:
    """Settle one claim."""
    (accepted,) = claims.settle([Settlement(request, state, result, wait)])
    return accepted


def granted(claims: Claims, request: ClaimRequest) -> int:
    """The fence of a claim that must be granted."""
    answer = take(claims, request)
    assert isinstance(answer, Granted), answer
    return answer.fence


def later(claims: Claims, request: ClaimRequest) -> int:
    """The fence of a claim that is granted when what blocks it has lapsed."""
    found: list[Answer] = []

    def asked() -> bool:
        found[:] = [take(claims, request)]
        return isinstance(found[0], Granted)

    wait_until(asked, 5, "the claim is granted")
    assert isinstance(found[0], Granted)
    return found[0].fence
