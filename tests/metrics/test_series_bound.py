"""Which counts are named one by one: it must not change, since Prometheus takes what appears for new attempts."""

from collections.abc import Mapping

from conventions.app import ConventionsApp
from conventions.metrics.read_counts import BETWEEN, Counts
from conventions.metrics.series import Series
from conventions.metrics.series_bound import MOST, OTHERS, stable_totals

ALL = Series(OTHERS, OTHERS)
FOREIGN: Mapping[Series, Mapping[str, int]] = {
    Series("Send", f"q{number:03}"): {"succeeded": 5} for number in range(MOST)
}


def tasks(count: int, name: str = "t") -> list[Series]:
    """Registered tasks, in the order of their names."""
    return [Series(f"{name}{number:03}", "mail") for number in range(count)]


def counted(*series: Series) -> dict[Series, Mapping[str, int]]:
    """Each ran once, in this order, after many queues of an unknown task."""
    return {**FOREIGN, **{one: {"succeeded": 1} for one in series}}


def test_a_deploy_with_more_tasks_changes_no_count() -> None:
    """Also above the bound, and where their names come before those of the others."""
    every = tasks(MOST + 50)
    totals = counted(*reversed(every))
    before, left = stable_totals(every, totals)
    assert left == 50
    assert {*before} == {*FOREIGN, *every[50:], ALL}, "those that were counted first"
    assert before[ALL] == {"succeeded": 50}
    after, left = stable_totals([*tasks(30, "new"), *every], totals)
    assert (after, left) == (before, 50 + 30)
    later, _ = stable_totals([*tasks(30, "new"), *every], totals | {tasks(1, "new")[0]: {"succeeded": 1}})
    assert later == before | {ALL: {"succeeded": 51}}


def test_a_registered_task_says_0_while_there_is_room() -> None:
    """Until as many of them have been counted."""
    every = tasks(MOST + 50)
    totals = counted(*every[-10:])
    named, left = stable_totals(every, totals)
    assert {*named} == {*FOREIGN, *every[-10:], *every[: MOST - 10], ALL}
    assert (named[every[0]], named[ALL], left) == ({}, {}, 50)
    after, _ = stable_totals(every, totals | {every[-11]: {"succeeded": 1}})
    assert {one: counts for one, counts in after.items() if counts} == totals | {every[-11]: {"succeeded": 1}}


def test_what_has_no_number_was_counted_last(app: ConventionsApp) -> None:
    """Pairs that are too many count as one of no name: it takes nobody's place."""
    redis, key = app.store.redis, app.store.key
    redis.hset(key("counts", "series"), mapping={f"Send{BETWEEN}q{number}": number for number in (2, 1, 3)})
    redis.hset(key("counts", "total"), mapping={f"{number}:succeeded": 1 for number in (0, 3, 2, 1)})
    assert [one.queue for one in Counts(app.store).totals()] == ["q1", "q2", "q3", ""]
