"""Pauses in Redis: they replace each other, end by themselves, and whatever else stands there holds nobody up."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conventions.core.json_fields import to_json
from conventions.pauses.pause import LONGEST_REASON, Pause
from conventions.pauses.pause_actions import PauseActions, PausedAgain, those_that_do_not_follow
from conventions.pauses.pause_store import Pauses, Target
from conventions.records.journal import Journal
from conventions.storage.redis_store import Store

MAIL = Target("queue", "mail")


def test_a_pause_and_its_end(store: Store) -> None:
    """Each has its row, and a revision that grows."""
    actions, pauses = PauseActions(store), Pauses(store)
    first = actions.pause(MAIL, "u-1", " the bank\x1b is down ")
    assert (first.revision, first.pause.actor) == (1, "u-1")
    assert pauses.read().pauses == {MAIL: first.pause}
    second = actions.pause(MAIL, "u-2", "it is still down")
    assert pauses.read().pauses == {MAIL: second.pause}
    ended = actions.resume(MAIL, "u-3")
    assert ended is not None
    assert (ended.revision, ended.pause, pauses.read().pauses) == (3, second.pause, {})
    assert actions.resume(MAIL, "u-3") is None
    assert Journal(store).length() == 3


def test_another_pause_is_not_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who resumes has seen another one: he is told of it."""
    actions, pauses = PauseActions(store), Pauses(store)
    actions.pause(MAIL, "u-1", "x")
    seen = pauses.read()
    actions.pause(MAIL, "u-2", "y")
    reads = iter([seen, pauses.read()])
    monkeypatch.setattr(Pauses, "read", lambda _: next(reads))
    with pytest.raises(PausedAgain) as again:
        actions.resume(MAIL, "u-3")
    assert again.value.pause.actor == "u-2"


@pytest.mark.parametrize(
    ("reason", "until", "fault"),
    [
        ("", None, "say why"),
        (" \n", None, "say why"),
        ("x" * (LONGEST_REASON + 1), None, "at most"),
        ("x", datetime(2036, 1, 1), "no time zone"),  # noqa: DTZ001  # that is the fault
        ("x", datetime(2020, 1, 1, tzinfo=UTC), "in the future"),
        ("x", datetime(9999, 1, 1, tzinfo=UTC), "too far away"),
    ],
)
def test_what_is_refused(store: Store, reason: str, until: datetime | None, fault: str) -> None:
    """Nothing is paused then."""
    with pytest.raises(ValueError, match=fault):
        PauseActions(store).pause(MAIL, "u-1", reason, until)
    assert Pauses(store).read().pauses == {}


def test_what_others_wrote_is_left_out(store: Store) -> None:
    """As a time without a zone, or the form of a later release; what can be read holds."""
    good = Pause("x", "u", datetime.now(UTC))
    odd: Any = {
        "queue a": '{"reason":"x","actor":"u","since":"2026-01-01T00:00:00","until":null}',
        "queue b": '{"reason":"x","actor":"u","since":"2026-01-01T00:00:00+00:00","until":"2036-01-01T00:00:00"}',
        "queue c": "no JSON", "queue d": "[]", "queue e": '{"reason":1,"actor":"u","since":"2026-01-01T00:00:00+00:00"}', "queue f": "{}",
        "queue g": '{"reason":"x","actor":"u","since":5}', "server x": to_json(good), "queue": to_json(good), "revision": "many",
        "queue h": "[" * 100_000,
    }  # fmt: skip
    store.redis.hset(store.key("pauses"), mapping=odd)
    store.redis.hset(store.key("pauses"), str(MAIL), to_json(good))
    found = Pauses(store).read()
    assert ({*found.pauses}, found.revision) == ({MAIL}, 0)


def test_one_that_is_over(store: Store) -> None:
    """By the clock of the server."""
    now = Pauses(store).read().at
    over = Pause("x", "u", now - timedelta(hours=2), now - timedelta(seconds=1))
    store.redis.hset(store.key("pauses"), str(MAIL), to_json(over))
    assert Pauses(store).read().pauses == {}
    assert PauseActions(store).resume(MAIL, "u") is None


def test_those_that_do_not_follow() -> None:
    """They are asked until they do, or the time is over."""

    class Follower:
        name = "w1"
        pauses = 1

    asked = iter([[Follower()], []])
    assert those_that_do_not_follow(lambda: next(asked), 2, within=5) == []
    assert those_that_do_not_follow(lambda: [Follower()], 2, within=0) == ["w1"]
    assert those_that_do_not_follow(lambda: [Follower()], 1, within=0) == []
