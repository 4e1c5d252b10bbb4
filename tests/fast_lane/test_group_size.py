"""`RuntimeEstimate`: how many jobs may go together follows from how long they take."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.fast_lane.group_size import (
    ENOUGH,
    HANDED,
    LONGEST,
    PROCESSES,
    TOGETHER,
    GroupSize,
    Paces,
    RuntimeEstimate,
)

seconds = st.floats(0, 10, allow_nan=False)


def paced(*times: float) -> RuntimeEstimate:
    """The pace after jobs that took so long."""
    pace = RuntimeEstimate()
    for one in times:
        pace.add(one)
    return pace


def test_an_unknown_task_goes_alone() -> None:
    """Its jobs may take anything."""
    assert RuntimeEstimate().expected == TOGETHER
    assert not RuntimeEstimate().is_short


def test_jobs_of_a_millisecond_go_together_soon() -> None:
    """After the first, a deviation of half of it is assumed; it falls with each job that is like the others."""
    assert paced(0.001).expected == 0.003
    assert paced(*[0.001] * 30).expected < 0.0011
    assert paced(0.001).is_short


def test_one_long_job_among_short_ones_shows_at_once() -> None:
    """Where it may have been an outlier, the next ones say so."""
    pace = paced(*[0.001] * 100, 1.0)
    assert not pace.is_short
    for _ in range(70):
        pace.add(0.001)
    assert pace.is_short


@given(st.lists(seconds, min_size=1))
def test_the_mean_lies_within_the_times(times: list[float]) -> None:
    """And what is expected is never below it, nor beyond what a group may take. Whatever is long counts as long."""
    pace = paced(*times)
    assert pace.mean is not None
    assert min(*times, LONGEST) - 1e-9 <= pace.mean <= min(max(times), LONGEST) + 1e-9
    assert min(pace.mean, TOGETHER) <= pace.expected <= TOGETHER


@pytest.mark.parametrize("seconds", [-1.0, 1e200, math.inf])
def test_an_odd_time_harms_nothing(seconds: float) -> None:
    """As of a clock that was set back."""
    pace = paced(*[0.001] * 100, seconds)
    assert 0 <= pace.fitting(HANDED) < math.inf
    for _ in range(100):
        pace.add(0.001)
    assert pace.is_short


@given(seconds, st.integers(200, 400))
def test_jobs_that_are_alike_are_expected_to_take_as_long(time: float, count: int) -> None:
    """Within a tenth."""
    assert paced(*[time] * count).expected <= min(time * 1.1 + 1e-9, TOGETHER)


def together(pace: RuntimeEstimate, count: int) -> float:
    """What so many jobs of a pace are expected to take."""
    jobs = GroupSize()
    for _ in range(count):
        jobs.add(pace)
    return jobs.expected


@given(st.lists(st.floats(0.00001, 0.01), min_size=1))
def test_as_many_fit_as_are_expected_to_take_that_long(times: list[float]) -> None:
    """One more would take longer."""
    pace = paced(*times)
    count = int(pace.fitting(HANDED))
    assert together(pace, count) <= HANDED * 1.000001
    assert together(pace, count + 1) > HANDED * 0.999999


@given(st.lists(seconds, min_size=1), st.integers(1, 100))
def test_jobs_together_are_expected_to_take_no_longer_than_each_by_itself(times: list[float], count: int) -> None:
    """But for the doubt about what only one job has told; and not less than their means."""
    pace = paced(*times)
    assert pace.mean is not None
    each = pace.mean + 4 * pace.deviation
    assert count * pace.mean * 0.999 <= together(pace, count) <= count * each * 1.5 + 1e-9


def test_a_stall_of_one_job_does_not_make_groups_small() -> None:
    """A process that others kept from running for five milliseconds says little about two hundred jobs."""
    assert paced(*[0.0001] * 100, 0.005).fitting(HANDED) > 100


@pytest.mark.parametrize("known", [1, 2, 8, 31, 32, 400])
def test_groups_take_as_long_as_is_expected(known: int) -> None:
    """Of jobs whose times vary as much as their mean, few groups take longer, however few jobs are known."""
    chance = random.Random(7)
    longer, counts = 0, []
    for _ in range(1000):
        pace = paced(*[chance.expovariate(2000) for _ in range(known)])
        counts.append(int(pace.fitting(HANDED)))
        longer += chance.gammavariate(counts[-1], 1 / 2000) > HANDED if counts[-1] else 0
    assert longer < (350 if known < 3 else 100)
    assert sum(counts) / 1000 > (100 if known == 400 else 40)


def test_an_unknown_task_takes_all_that_a_group_may() -> None:
    """Together with others, too."""
    assert together(RuntimeEstimate(), 1) == TOGETHER


def test_the_first_job_of_each_process_is_left_out() -> None:
    """It imports and connects."""
    paces = Paces()
    for process in (1, 2):
        paces.add("task", 0.1, process, together=False)
    paces.add("task", 0.001, 1, together=False)
    assert paces.is_short("task")
    paces.add("task", 0.1, 3, together=False)  # one that is new
    assert paces.is_short("task")
    assert not paces.is_short("other")


def test_what_jobs_took_alone_is_forgotten_with_the_first_that_went_together() -> None:
    """Alone, each waits for its claim."""
    paces = Paces()
    for _ in range(2):
        paces.add("task", 0.002, 1, together=False)
    paces.add("task", 0.004, 1, together=True)  # the first of a group in its process
    assert paces.of("task").mean == 0.002
    paces.add("task", 0.0001, 1, together=True)
    assert (paces.of("task").mean, paces.mix.mean) == (0.0001, 0.0001)
    paces.add("task", 0.009, 1, together=False)
    assert paces.of("task").mean == 0.0001
    paces.add("task", 0.03, 1, together=False)  # that is no wait for a claim
    assert not paces.is_short("task")
    for _ in range(40):
        paces.add("task", 0.002, 1, together=False)
    assert paces.is_short("task")


def test_few_jobs_are_enough_where_they_are_alike() -> None:
    """Half of what a group may take is a long time for one job: that all take as long takes some to tell."""
    assert not paced(*[0.005] * 2).is_short
    assert paced(*[0.0049] * 3).is_short
    assert not paced(0.005, 0.005, 0.005, 0.009).is_short


def test_jobs_that_go_together_for_the_first_time_are_no_strangers() -> None:
    """What they took alone counts until enough have gone together."""
    paces = Paces()
    for _ in range(5):
        paces.add("task", 0.006, None, together=False)
    for _ in range(ENOUGH):
        assert paces.is_short("task")
        paces.add("task", 0.005, None, together=True)
    assert (paces.of("task").mean, paces.mix.mean) == (0.005, 0.005)
    assert paces.is_short("task")


def test_what_went_together_before_others_went_alone_is_forgotten() -> None:
    """It may be hours old."""
    paces = Paces()
    for _ in range(4):
        paces.add("task", 0.001, None, together=False)
    for _ in range(3):
        paces.add("task", 0.3, None, together=True)
    while not paces.is_short("task"):
        paces.add("task", 0.001, None, together=False)
    for _ in range(ENOUGH):
        paces.add("task", 0.001, None, together=True)
        assert paces.is_short("task")


def test_the_first_that_go_together_may_be_long() -> None:
    """That counts at once, and again when enough have gone together."""
    paces = Paces()
    for _ in range(5):
        paces.add("task", 0.006, None, together=False)
    for _ in range(ENOUGH):
        paces.add("task", 0.1, None, together=True)
        assert not paces.is_short("task")
    assert paces.of("task").mean == 0.1


def test_a_first_job_that_is_long_counts() -> None:
    """It may end its process each time, as one that takes too much memory does."""
    paces = Paces()
    for process in range(1, 100, 2):
        paces.add("task", 5.0, process, together=False)
        for _ in range(3):
            paces.add("task", 0.001, process + 1, together=False)
        assert not paces.is_short("task")


def test_what_is_known_of_others_is_not_forgotten() -> None:
    """A task whose jobs go together for the first time says nothing of the long jobs between them."""
    paces = Paces()
    for _ in range(200):
        paces.add("long", 2.0, None, together=False)
    paces.add("short", 0.0002, None, together=True)
    assert paces.is_short("short")
    assert not paces.mix.is_short


def test_what_was_read_ahead_in_vain_makes_reads_narrow() -> None:
    """For some jobs."""
    paces = Paces()
    for _ in range(100):
        paces.add("task", 0.0001, None, together=True)
    paces.narrow()
    for _ in range(3):
        paces.add("task", 0.0001, None, together=True)
        assert not paces.mix.is_short
    for _ in range(20):
        paces.add("task", 0.0001, None, together=True)
    assert paces.mix.is_short


def test_processes_are_not_remembered_without_end() -> None:
    """A worker that replaces its processes for years needs no more memory."""
    paces = Paces()
    for process in range(2 * PROCESSES):
        paces.add("task", 0.001, process, together=False)
    assert len(paces._warm) <= PROCESSES
