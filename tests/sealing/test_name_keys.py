"""Names of sealed jobs: nobody guesses arguments back from them, and while their key changes two names mean one claim (R4, R21)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conventions.core.named_keys import new_key
from conventions.idempotency.claims import Claims
from conventions.sealing.name_keys import NameKeys, Names
from conventions.storage.redis_store import Store

OLD, NEW = new_key("old"), new_key("new")
PLAIN = Names("k", "f")
KEEP = timedelta(days=8)


def test_a_name_tells_nothing() -> None:
    """It is as long as a plain one, another one under each key, and another one for a key than for a fingerprint."""
    (old,), (new,) = NameKeys.parse(OLD).of(PLAIN), NameKeys.parse(NEW).of(PLAIN)
    assert len({*old, *new, *PLAIN}) == 6
    assert {len(one) for one in (*old, *new)} == {32}
    assert NameKeys.parse(OLD).of(PLAIN) == [old]
    (same,) = NameKeys.parse(OLD).of(Names("x", "x"))
    assert same.key != same.fingerprint


def test_two_keys_while_one_takes_the_place_of_the_other() -> None:
    """The first one names; `plain` stands for the names of a task that is not sealed yet."""
    (old,), (new,) = NameKeys.parse(OLD).of(PLAIN), NameKeys.parse(NEW).of(PLAIN)
    assert NameKeys.parse(f"{OLD}, {NEW}").of(PLAIN) == [old, new]
    assert NameKeys.parse(f"plain,{NEW}").of(PLAIN) == [PLAIN, new]
    assert NameKeys.parse(f"{NEW},plain").of(PLAIN) == [new, PLAIN]


@pytest.mark.parametrize(
    "make",
    [
        lambda: "plain",
        lambda: "plain,plain",
        lambda: f"plain:{NEW.partition(chr(58))[2]},plain",
        lambda: f"{OLD},{NEW},{new_key('x')}",
        lambda: f"{OLD},{OLD}",
        lambda: "",
        lambda: "a:b",
    ],
)
def test_wrong_settings(make: Callable[[], str]) -> None:
    """They are refused, and no key is repeated."""
    with pytest.raises(ValueError, match=r"write|there are 3 keys") as raised:
        NameKeys.parse(make())
    assert OLD.partition(":")[2] not in str(raised.value)


@pytest.fixture
def claims(store: Store) -> Claims:
    """Of an application."""
    return Claims(store, lease=30)


STEPS = st.lists(st.sampled_from(["ask old", "ask new", "take old", "take new", "end"]), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example begins anew
@given(STEPS)
def test_two_names_are_one_claim(store: Store, steps: list[str]) -> None:
    """In whatever order messages ask, take their claims, and claims are forgotten: there are never two.

    A message takes the claim that it was told within an hour; here at once or later, in any order.
    """
    claims, redis = Claims(store, lease=30), store.redis
    names = ("old", "new")
    redis.delete(*(store.key(kind, f"mine.Pay:{name}") for kind in ("claim", "same_claim") for name in names))
    told: dict[str, str] = {}
    other = {"old": "new", "new": "old"}

    def claim(name: str) -> str:
        return store.key("claim", f"mine.Pay:{name}")

    for step in steps:
        what, _, name = step.partition(" ")
        if what == "ask":
            told[name] = claims.same_claim("mine.Pay", name, other[name], KEEP)
        elif what == "take" and name in told:
            redis.set(claim(told[name]), "running", px=KEEP)
        elif what == "end":
            redis.delete(claim("old"), claim("new"))
            told.clear()
        assert not (redis.exists(claim("old")) and redis.exists(claim("new")))
        assert len(set(told.values())) < 2, "whoever asks is told the same"


def test_claims_move_in_the_end(claims: Claims, store: Store) -> None:
    """Once the claim under the other name is forgotten, and an hour has passed, the message's own name counts."""
    redis: Any = store.redis
    redis.set(store.key("claim", "mine.Pay:old"), "done")
    assert claims.same_claim("mine.Pay", "new", "old", KEEP) == "old"
    redis.delete(store.key("claim", "mine.Pay:old"))
    assert claims.same_claim("mine.Pay", "new", "old", KEEP) == "old", "whoever asked before may take it yet"
    redis.pexpire(store.key("same_claim", "mine.Pay:new"), KEEP - timedelta(hours=1, seconds=1))
    assert claims.same_claim("mine.Pay", "new", "old", KEEP) == "new"
    assert claims.same_claim("mine.Pay", "old", "new", KEEP) == "new"
