"""An episode is told once when it fires, and once when it is over, however often it is seen and whatever happens between."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.alerts.alert_store import Silence
from conventions.alerts.episode import AT_ONCE, HOLDS_FOR, OVER_AFTER, SPAN, Episode, Transition, judged, urgency
from conventions.alerts.finding import Finding
from conventions.alerts.message_body import body_of
from conventions.alerts.rules import RULE_NAMES

BACKLOG = Finding("backlog", "mail", "warning", "mail: 1,000 messages wait", "add workers", "/")
LETTERS = Finding("dead letters", "Mail", "warning", "Mail: 10 dead letters", "look", "/")
BLIND = Finding("unreadable", "queues", "critical", "nobody can tell", "look", "/")


def run(*steps: tuple[float, Sequence[Finding]]) -> list[tuple[float, str, str]]:
    """What is told, and when, after looks at these times."""
    episodes: dict[str, Episode] = {}
    told: list[tuple[float, str, str]] = []
    for now, found in steps:
        episodes, changes, _ = judged(episodes, found, (), (), now)
        told += [(now, one.change, one.episode.finding.rule) for one in changes]
    return told


def test_a_finding_fires_when_it_has_held() -> None:
    """One that goes before that is told to nobody."""
    assert run((0, [BACKLOG]), (HOLDS_FOR - 1, [BACKLOG])) == []
    assert run((0, [BACKLOG]), (HOLDS_FOR - 1, []), (HOLDS_FOR, [BACKLOG])) == []
    assert run((0, [BACKLOG]), (HOLDS_FOR, [BACKLOG])) == [(HOLDS_FOR, "firing", "backlog")]


def test_what_judges_a_span_fires_at_once() -> None:
    """It has held already."""
    assert "dead letters" in AT_ONCE
    assert run((0, [LETTERS])) == [(0, "firing", "dead letters")]
    assert set(RULE_NAMES) >= AT_ONCE


def test_it_is_over_when_it_was_away() -> None:
    """A value at its threshold comes and goes: that is one episode."""
    over = OVER_AFTER
    assert run((0, [LETTERS]), (10, []), (10 + over - 1, [])) == [(0, "firing", "dead letters")]
    assert run((0, [LETTERS]), (10, []), (20, [LETTERS]), (30, []), (30 + over, [])) == [
        (0, "firing", "dead letters"), (30 + over, "resolved", "dead letters"),
    ]  # fmt: skip
    assert run((0, [LETTERS]), (10, []), (10 + over, []), (200, [LETTERS]))[-1] == (200, "firing", "dead letters")


def test_while_nobody_can_tell_nothing_is_over() -> None:
    """An outage of Redis does not mean that the backlog is gone."""
    steps: list[tuple[float, Sequence[Finding]]] = [
        (0.0, [LETTERS]),
        *((float(now), [BLIND]) for now in range(10, 1000, 10)),
        (1000.0, []),
        (1000.0 + OVER_AFTER, []),
    ]
    assert sorted(run(*steps)) == [
        (0, "firing", "dead letters"), (10 + HOLDS_FOR, "firing", "unreadable"),
        (1000 + OVER_AFTER, "resolved", "dead letters"), (1000 + OVER_AFTER, "resolved", "unreadable"),
    ]  # fmt: skip


@given(st.lists(st.tuples(st.floats(1, 200), st.booleans()), max_size=60))
def test_firing_and_over_take_turns(looks: list[tuple[float, bool]]) -> None:
    """For one thing, in any rhythm; and each of the two is of the same episode."""
    now, episodes, told = 0.0, dict[str, Episode](), list[Transition]()
    for wait, seen in looks:
        now += wait
        episodes, changes, _ = judged(episodes, [BACKLOG] if seen else [], (), (), now)
        told += changes
    assert [one.change for one in told] == ["firing", "resolved"] * (len(told) // 2) + ["firing"] * (len(told) % 2)
    ids = [one.episode.id for one in told]
    assert ids[::2][: len(ids[1::2])] == ids[1::2]
    assert len(set(ids)) == (len(ids) + 1) // 2


def test_it_says_what_was_seen_last() -> None:
    """Not what it began with."""
    worse = replace(BACKLOG, says="mail: 9,000 messages wait")
    episodes, _, _ = judged({}, [BACKLOG], (), (), 0)
    episodes, changes, _ = judged(episodes, [worse], (), (), HOLDS_FOR)
    assert changes[0].episode.finding.says == worse.says
    assert changes[0].episode.began == 0


@pytest.mark.parametrize("name", RULE_NAMES)
def test_a_silence_names_a_rule_or_one_subject(name: str) -> None:
    """No name is the beginning of another one's key."""
    assert not any(other.startswith(f"{name} ") for other in RULE_NAMES)


def test_what_is_critical_comes_first() -> None:
    """Then what fires, then what began first."""
    blind, old, new = Episode("1", BLIND, 9.0), Episode("2", BACKLOG, 1.0, 2.0), Episode("3", LETTERS, 3.0, 3.0)
    pending = Episode("4", BACKLOG, 0.0)
    assert sorted([pending, new, old, blind], key=urgency) == [blind, old, new, pending]


def test_since_when_it_is_so() -> None:
    """As its finding knows it; else since it was first seen. What is told has both."""
    seen = Episode("1", BACKLOG, 9.0)
    known = Episode("2", replace(BACKLOG, since=3.0), 9.0)
    assert (seen.since, known.since, known.began) == (9.0, 3.0, 9.0)
    body = body_of("shop", Transition("firing", known))
    assert (body["since"], body["began"]) == ("1970-01-01T00:00:03+00:00", "1970-01-01T00:00:09+00:00")


def test_what_another_finding_covers_is_not_over() -> None:
    """It is wrong still; and it begins no episode of its own."""
    rate = replace(LETTERS, rule="failure rate")
    other = replace(LETTERS, subject="Other")
    episodes, _, _ = judged({}, [LETTERS], (), (), 0)
    for now in (10.0, 10 + OVER_AFTER, 10 + 2 * OVER_AFTER):
        found = [rate, LETTERS, replace(rate, subject="Other"), other]
        episodes, changes, _ = judged(episodes, found, (), (), now)
        assert [one for one in changes if one.change == "resolved"] == []
    assert episodes.keys() == {LETTERS.key, rate.key, "failure rate Other"}
    episodes, changes, _ = judged(episodes, [rate], (), (), 1000)
    episodes, changes, _ = judged(episodes, [rate], (), (), 1000 + OVER_AFTER)
    assert sorted(one.episode.finding.key for one in changes) == [LETTERS.key, "failure rate Other"]


RATE = replace(LETTERS, rule="failure rate", says="Mail: 8 % of 500 jobs died", value=0.08, threshold=0.05)


def letters(count: int) -> Finding:
    """So many dead letters; ten are a finding."""
    return replace(LETTERS, says=f"Mail: {count} dead letters", value=float(count), threshold=10.0)


def told(
    *looks: Sequence[Finding], before: Mapping[str, Episode] | None = None, silences: Sequence[Silence] = ()
) -> tuple[list[tuple[int, str, str]], dict[str, Episode]]:
    """What people are told at looks ten seconds apart, each as its number, change and rule; and the episodes at the end."""
    episodes, found = dict(before or {}), list[tuple[int, str, str]]()
    for number, look in enumerate(looks):
        episodes, _, changes = judged(episodes, look, (), silences, 10.0 * number)
        found += [(number, one.change, one.episode.finding.rule) for one in changes]
    return found, episodes


def test_what_was_told_under_another_name_is_not_told_as_new() -> None:
    """It fires and is listed, and is told once as much came since as its rule needs, and then its end, too."""
    covered, _ = told([RATE], [RATE, letters(40)], [letters(40)], [letters(30)], *13 * [[]])
    assert covered == [(0, "firing", "failure rate"), (14, "resolved", "failure rate")]
    found, episodes = told([RATE, letters(40)], [letters(44)], [letters(38)], [letters(43)])
    assert found == [(0, "firing", "failure rate")], "four came, and five"
    assert [(one.state, one.told) for one in episodes.values() if one.finding.rule == LETTERS.rule] == [
        ("firing", False)
    ]
    found, _ = told([letters(44)], *14 * [[]], before=episodes)
    assert (0, "firing", "dead letters") in found
    assert (13, "resolved", "dead letters") in found


def test_what_was_told_once_more_under_the_other_name_is_known_anew() -> None:
    """The failure rate has come back, and has told of those that came."""
    _, episodes = told([RATE, letters(40)], [letters(49)])
    assert told([RATE, letters(60)], [letters(69)], before=episodes)[0] == []
    assert told([RATE, letters(60)], [letters(70)], before=episodes)[0] == [(1, "firing", "dead letters")]


def test_what_nobody_was_told_is_told() -> None:
    """The other alert was silent; or it did not find so much as to say it."""
    quiet = Silence(RATE.rule, datetime(2026, 12, 1, tzinfo=UTC), "we know", "ann")
    found, _ = told([RATE, letters(40)], [letters(40)], silences=[quiet])
    assert found == [(1, "firing", "dead letters")]
    assert told([RATE], [letters(10)])[0] == [(0, "firing", "failure rate"), (1, "firing", "dead letters")]


def test_what_is_wrong_now_is_told_whatever_covered_it() -> None:
    """A worker consumes the queue again, and a backlog is left: that is what people look at next."""
    alone = replace(BACKLOG, rule="no consumer")
    looks = [[alone, BACKLOG]] * 4 + [[BACKLOG]] * 4
    assert told(*looks)[0] == [(3, "firing", "no consumer"), (7, "firing", "backlog")]


def test_while_something_cannot_be_read_nothing_came() -> None:
    """SQL is away, so letters that people have settled seem to be dead."""
    for looks in ([letters(12)], [BLIND, letters(40)], [letters(12)]), ([BLIND, letters(40)], [letters(12)]):
        assert told([RATE, letters(12)], *looks)[0] == [(0, "firing", "failure rate")]


def test_what_came_while_something_could_not_be_read_is_told_at_the_next_look() -> None:
    """Whatever was away: it need not be what counts the letters."""
    for looks in ([letters(12)], [BLIND, letters(52)], [letters(52)]), ([BLIND, letters(52)], [letters(52)]):
        found, _ = told([RATE, letters(12)], *looks)
        assert found == [(0, "firing", "failure rate"), (len(looks), "firing", "dead letters")]
    found, _ = told([RATE, letters(12)], [BLIND, RATE, letters(52)], [letters(52)])
    assert found == [(0, "firing", "failure rate"), (2, "firing", "dead letters")], "nobody could say that it was told"


def test_as_many_come_as_go() -> None:
    """The value stays, and once nothing that it counts is of the time of the other name, it is told."""
    steady = [[letters(30)]] * 95
    found, _ = told([RATE, letters(30)], *steady)
    of_letters = [at for at, change, rule in found if (change, rule) == ("firing", "dead letters")]
    assert of_letters == [int(SPAN / 10) + 1]


def test_an_alert_that_is_covered_says_what_is_so_now() -> None:
    """It is listed all the while, and told of no more."""
    found, episodes = told([letters(12)], [RATE, letters(40)], [RATE, letters(41)])
    assert episodes[LETTERS.key].finding == letters(41)
    assert told([letters(60)], before=episodes)[0] == []
    assert found == [(0, "firing", "dead letters"), (1, "firing", "failure rate")]


def test_what_goes_on_begins_nothing_and_is_not_over() -> None:
    """It keeps one that fires, with its words of now and since when it is so; found anew, it is what was found."""
    waits = replace(LETTERS, rule="retrying", says="Mail: 30 messages are retrying", since=5.0)
    fewer = replace(waits, says="Mail: 20 messages are retrying", since=None)
    assert judged({}, [], [fewer], (), 0).episodes == {}
    episodes = judged({}, [waits], [fewer], (), 10).episodes
    assert episodes[waits.key].finding == waits
    for now in (20.0, 20 + OVER_AFTER, 20 + 2 * OVER_AFTER):
        episodes, changes, _ = judged(episodes, [], [fewer], (), now)
        assert (changes, episodes[waits.key].finding) == ([], replace(fewer, since=5.0))
    episodes = judged(episodes, [], [], (), 1000).episodes
    assert [one.change for one in judged(episodes, [], [], (), 1000 + OVER_AFTER).told] == ["resolved"]
    pending = judged({}, [BACKLOG], [], (), 0).episodes
    assert judged(pending, [], [BACKLOG], (), HOLDS_FOR).episodes == {}, "one that did not fire yet does not go on"


def test_one_look_says_who_is_told() -> None:
    """What fires in silence changes, and is told afterwards, in the episode that the store keeps."""
    quiet = Silence("dead letters", datetime(2026, 12, 1, tzinfo=UTC), "we know", "ann")
    first = judged({}, [LETTERS], (), [quiet], 0)
    assert ([one.change for one in first.changes], first.told) == (["firing"], [])
    second = judged(first.episodes, [LETTERS], (), [], 10)
    assert (second.changes, [one.change for one in second.told]) == ([], ["firing"])
    assert second.episodes[LETTERS.key].told
    assert judged(second.episodes, [LETTERS], (), [], 20).told == []
