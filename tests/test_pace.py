"""`Pace`: how many jobs may go together follows from how long they take."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.pace import HANDED, PROCESSES, TOGETHER, Pace, Paces, Together

seconds = st.floats(0, 10, allow_nan=False)


def paced(*times: float) -> Pace:
    """The pace after jobs that took so long."""
    pace = Pace()
    for one in times:
        pace.add(one)
    return pace


def test_an_unknown_task_goes_alone() -> None:
    """Its jobs may take anything."""
    assert Pace().expected == TOGETHER
    assert not Pace().is_short


def test_jobs_of_a_millisecond_go_together_soon() -> None:
    """After the first, a deviation of half of it is assumed; it falls with each job that is like the others."""
    assert paced(0.001).expected == 0.003
    assert paced(*[0.001] * 30).expected < 0.0011
    assert paced(0.001).is_short


def test_one_long_job_among_short_ones_shows_at_once() -> None:
    """Where it may have been an outlier, the next ones say so."""
    pace = paced(*[0.001] * 100, 1.0)
    assert not pace.is_short
    for _ in range(120):
        pace.add(0.001)
    assert pace.is_short


@given(st.lists(seconds, min_size=1))
def test_the_mean_lies_within_the_times(times: list[float]) -> None:
    """And what is expected is never below it, nor beyond what a group may take."""
    pace = paced(*times)
    assert pace.mean is not None
    assert min(times) - 1e-9 <= pace.mean <= max(times) + 1e-9
    assert min(pace.mean, TOGETHER) <= pace.expected <= TOGETHER


@given(seconds, st.integers(200, 400))
def test_jobs_that_are_alike_are_expected_to_take_as_long(time: float, count: int) -> None:
    """Within a tenth."""
    assert paced(*[time] * count).expected <= min(time * 1.1 + 1e-9, TOGETHER)


def together(pace: Pace, count: int) -> float:
    """What so many jobs of a pace are expected to take."""
    jobs = Together()
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
    """And not less than their means."""
    pace = paced(*times)
    assert pace.mean is not None
    each = pace.mean + 4 * pace.deviation
    assert count * pace.mean * 0.999 <= together(pace, count) <= count * each * 1.02 + 1e-9


def test_a_stall_of_one_job_does_not_make_groups_small() -> None:
    """A process that others kept from running for five milliseconds says little about two hundred jobs."""
    assert paced(*[0.0001] * 100, 0.005).fitting(HANDED) > 100


def test_groups_take_as_long_as_is_expected() -> None:
    """Of jobs whose times vary as much as their mean, hardly any group takes longer."""
    chance = random.Random(7)
    pace = paced(*[chance.expovariate(2000) for _ in range(400)])
    count = int(pace.fitting(HANDED))
    takes = [sum(chance.expovariate(2000) for _ in range(count)) for _ in range(1000)]
    assert sum(one > HANDED for one in takes) < 20
    assert sum(takes) / 1000 > HANDED / 2


def test_an_unknown_task_takes_all_that_a_group_may() -> None:
    """Together with others, too."""
    assert together(Pace(), 1) == TOGETHER


def test_the_first_job_of_each_process_is_left_out() -> None:
    """It imports and connects."""
    paces = Paces()
    for process in (1, 2):
        paces.add("task", 0.5, process, together=False)
    assert not paces.knows_short
    paces.add("task", 0.001, 1, together=False)
    assert paces.is_short("task")
    paces.add("task", 0.5, 3, together=False)  # one that is new
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
    paces.add("task", 0.0009, 1, together=False)
    assert paces.of("task").mean == pytest.approx(0.0005)


def test_processes_are_not_remembered_without_end() -> None:
    """A worker that replaces its processes for years needs no more memory."""
    paces = Paces()
    for process in range(2 * PROCESSES):
        paces.add("task", 0.001, process, together=False)
    assert len(paces._warm) <= PROCESSES
