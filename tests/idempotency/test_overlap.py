"""Where the broker is elsewhere, the settle says that a run has ended for which a schedule waits (protocol 14)."""

from dataclasses import replace
from typing import Any

import pytest

from conventions.idempotency.claims import Claims
from conventions.records.journal import Event
from conventions.storage.redis_store import Store
from tests.claiming import AGAIN, FIRST, granted, settle, take

RUN = FIRST.message_id


def lives(store: Store) -> bool:
    """Whether the run still counts as one."""
    return bool(store.redis.exists(store.key("live", RUN)))


@pytest.fixture
def begun(store: Store) -> str:
    """A run that a schedule waits for."""
    key = store.key("live", RUN)
    store.redis.set(key, "daily")
    return key


@pytest.mark.parametrize(
    ("state", "how", "ends"),
    [
        ("done", {}, True),
        ("done", {"action": "keep"}, True),
        ("dead", {}, True),
        ("released", {}, True),  # cancelled while it ran
        ("released", {"action": "retry", "wait": 5}, False),
        ("released", {"action": "park", "wait": 5}, False),
        ("released", {"action": "keep"}, False),
        ("continued", {"action": "park"}, False),
    ],
)
@pytest.mark.usefixtures("begun")
def test_an_outcome_ends_a_run(state: str, how: dict[str, Any], ends: bool, claims: Claims, store: Store) -> None:
    """One after which the message does not come again."""
    granted(claims, FIRST)
    assert settle(claims, FIRST, state, **how) == "recorded"
    assert lives(store) is not ends


@pytest.mark.parametrize("kind", ["dead", "cancelled", "revoked", "expired", "duplicate", "superseded"])
@pytest.mark.usefixtures("begun")
def test_a_message_that_never_ran_ends_a_run(kind: str, claims: Claims, store: Store) -> None:
    """Unless another copy of it is further on."""
    state = "dead" if kind == "dead" else "released"
    settle(claims, FIRST, state, claimed=False, event=Event(RUN, kind))
    assert lives(store) is (kind == "superseded")


@pytest.mark.usefixtures("begun")
def test_who_lost_the_claim_ends_nothing(claims: Claims, store: Store) -> None:
    """The run goes on in other hands."""
    granted(claims, FIRST)
    assert settle(claims, replace(AGAIN, token="stale"), "done") == "refused"
    assert lives(store)


@pytest.mark.parametrize("state", ["done", "dead"])
def test_a_copy_that_finds_the_end_ends_a_run(state: str, claims: Claims, store: Store) -> None:
    """A beat may send a slot once more after its run has ended, and begin it again for that."""
    granted(claims, FIRST)
    settle(claims, FIRST, state)
    store.redis.set(store.key("live", RUN), "daily")
    take(claims, AGAIN)
    assert not lives(store)
