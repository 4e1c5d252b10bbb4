"""`RuntimeEstimate`: how many jobs may go together follows from how long they take."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.fast_lane.group_size import (
    ENOUGH,
    HANDED,
    IN_A_ROW,
    LONGEST,
    PROCESSES,
    SELDOM,
    TOGETHER,
    GroupSize,
    RuntimeEstimate,
    RuntimeEstimates,
)

seconds = st.floats(0, 10, allow_nan=False)


def estimate_of(*times: float) -> RuntimeEstimate:
    """The estimate after jobs that took so long."""
    estimate = RuntimeEstimate()
    for one in times:
        estimate.add(one)
    return estimate


def test_an_unknown_task_is_not_short() -> None:
    """Its jobs may take anything."""
    assert RuntimeEstimate().expected == TOGETHER
    assert not RuntimeEstimate().is_short


def test_jobs_of_a_millisecond_go_together_soon() -> None:
    """After the first, a deviation of half of it is assumed; it falls with each job that is like the others."""
    assert estimate_of(0.001).expected == 0.003
    assert estimate_of(*[0.001] * 30).expected < 0.0011
    assert estimate_of(0.001).is_short


def test_one_long_job_among_short_ones_shows_at_once() -> None:
    """Where it may have been an outlier, the next ones say so."""
    estimate = estimate_of(*[0.001] * 100, 1.0)
    assert not estimate.is_short
    for _ in range(70):
        estimate.add(0.001)
    assert estimate.is_short


@given(st.lists(seconds, min_size=1))
def test_the_mean_lies_within_the_times(times: list[float]) -> None:
    """And what is expected is never below it, nor beyond what a group may take. Whatever is long counts as long."""
    estimate = estimate_of(*times)
    assert estimate.mean is not None
    assert min(*times, LONGEST) - 1e-9 <= estimate.mean <= min(max(times), LONGEST) + 1e-9
    assert min(estimate.mean, TOGETHER) <= estimate.expected <= TOGETHER


@pytest.mark.parametrize("seconds", [-1.0, 1e200, math.inf])
def test_an_odd_time_harms_nothing(seconds: float) -> None:
    """As of a clock that was set back."""
    estimate = estimate_of(*[0.001] * 100, seconds)
    assert 0 <= estimate.fitting(HANDED) < math.inf
    for _ in range(100):
        estimate.add(0.001)
    assert estimate.is_short


@given(seconds, st.integers(200, 400))
def test_jobs_that_are_alike_are_expected_to_take_as_long(time: float, count: int) -> None:
    """Within a tenth."""
    assert estimate_of(*[time] * count).expected <= min(time * 1.1 + 1e-9, TOGETHER)


def together(estimate: RuntimeEstimate, count: int) -> float:
    """What so many jobs of a estimate are expected to take."""
    jobs = GroupSize()
    for _ in range(count):
        jobs.add(estimate)
    return jobs.expected


@given(st.lists(st.floats(0.00001, 0.01), min_size=1))
def test_as_many_fit_as_are_expected_to_take_that_long(times: list[float]) -> None:
    """One more would take longer."""
    estimate = estimate_of(*times)
    count = int(estimate.fitting(HANDED))
    assert together(estimate, count) <= HANDED * 1.000001
    assert together(estimate, count + 1) > HANDED * 0.999999


@given(st.lists(seconds, min_size=1), st.integers(1, 100))
def test_jobs_together_are_expected_to_take_no_longer_than_each_by_itself(times: list[float], count: int) -> None:
    """But for the doubt about what only one job has told; and not less than their means."""
    estimate = estimate_of(*times)
    assert estimate.mean is not None
    each = estimate.mean + 4 * estimate.deviation
    assert count * estimate.mean * 0.999 <= together(estimate, count) <= count * each * 1.5 + 1e-9


def test_a_stall_of_one_job_does_not_make_groups_small() -> None:
    """A process that others kept from running for five milliseconds says little about two hundred jobs."""
    assert estimate_of(*[0.0001] * 100, 0.005).fitting(HANDED) > 100


@pytest.mark.parametrize("known", [1, 2, 8, 31, 32, 400])
def test_groups_take_as_long_as_is_expected(known: int) -> None:
    """Of jobs whose times vary as much as their mean, few groups take longer, however few jobs are known."""
    chance = random.Random(7)
    longer, counts = 0, []
    for _ in range(1000):
        estimate = estimate_of(*[chance.expovariate(2000) for _ in range(known)])
        counts.append(int(estimate.fitting(HANDED)))
        longer += chance.gammavariate(counts[-1], 1 / 2000) > HANDED if counts[-1] else 0
    assert longer < (350 if known < 3 else 100)
    assert sum(counts) / 1000 > (100 if known == 400 else 40)


def test_an_unknown_task_takes_all_that_a_group_may() -> None:
    """Together with others, too."""
    assert together(RuntimeEstimate(), 1) == TOGETHER


def test_the_first_job_of_each_process_is_left_out() -> None:
    """It imports and connects."""
    estimates = RuntimeEstimates()
    for process in (1, 2):
        estimates.add("task", 0.1, process, together=False)
    estimates.add("task", 0.001, 1, together=False)
    assert estimates.is_short("task")
    estimates.add("task", 0.1, 3, together=False)  # one that is new
    assert estimates.is_short("task")
    assert not estimates.is_short("other")


def test_it_is_open_whether_jobs_are_short_until_they_are_or_take_long() -> None:
    """As long as it is, they are measured without their waits for the server."""
    estimates = RuntimeEstimates()
    assert estimates.measures_next("task")
    for _ in range(3):
        estimates.add("task", 0.03, None, together=True)
    assert estimates.measures_next("task")
    for _ in range(100):
        estimates.add("task", 0.001, None, together=True)
    assert not estimates.measures_next("task")
    assert estimates.is_short("task")
    for _ in range(100):
        estimates.add("task", 0.3, None, together=True)
    assert not estimates.measures_next("task")
    assert not estimates.is_short("task")


def test_first_jobs_that_took_long_are_no_verdict() -> None:
    """As those that connect to a database: one in `SELDOM` is measured all the same, and may be short."""
    estimates = RuntimeEstimates()
    for process in range(8):
        estimates.add("task", 0.5, process, together=True)
    assert [estimates.measures_next("task") for _ in range(2 * SELDOM)].count(True) == 2
    for _ in range(50):
        estimates.add("task", 0.1, None, together=False)  # each waits for a server that is far away
    for _ in range(IN_A_ROW):
        assert not estimates.is_short("task")
        estimates.add("task", 0.001, None, together=True)
    assert estimates.is_short("task")


def test_a_short_job_now_and_then_does_not_make_a_task_short() -> None:
    """As one that finds nothing to do."""
    estimates = RuntimeEstimates()
    for _ in range(20):
        for seconds in (0.5, 0.001, 0.001):
            estimates.add("task", seconds, None, together=True)
            assert not estimates.is_short("task")


def test_what_jobs_took_alone_is_forgotten_with_the_first_that_went_together() -> None:
    """Alone, each waits for its claim."""
    estimates = RuntimeEstimates()
    for _ in range(2):
        estimates.add("task", 0.002, 1, together=False)
    estimates.add("task", 0.004, 1, together=True)  # the first of a group in its process
    assert estimates.of("task").mean == 0.002
    estimates.add("task", 0.0001, 1, together=True)
    assert (estimates.of("task").mean, estimates.mix.mean) == (0.0001, 0.0001)
    estimates.add("task", 0.009, 1, together=False)
    assert estimates.of("task").mean == 0.0001
    estimates.add("task", 0.03, 1, together=False)  # that is no wait for a claim
    assert not estimates.is_short("task")
    for _ in range(40):
        estimates.add("task", 0.002, 1, together=False)
    assert estimates.is_short("task")


def test_few_jobs_are_enough_where_they_are_alike() -> None:
    """Half of what a group may take is a long time for one job: that all take as long takes some to tell."""
    assert not estimate_of(*[0.005] * 2).is_short
    assert estimate_of(*[0.0049] * 3).is_short
    assert not estimate_of(0.005, 0.005, 0.005, 0.009).is_short


def test_jobs_that_go_together_for_the_first_time_are_no_strangers() -> None:
    """What they took alone counts until enough have gone together."""
    estimates = RuntimeEstimates()
    for _ in range(5):
        estimates.add("task", 0.006, None, together=False)
    for _ in range(ENOUGH):
        assert estimates.is_short("task")
        estimates.add("task", 0.005, None, together=True)
    assert (estimates.of("task").mean, estimates.mix.mean) == (0.005, 0.005)
    assert estimates.is_short("task")


def test_what_went_together_before_others_went_alone_is_forgotten() -> None:
    """It may be hours old."""
    estimates = RuntimeEstimates()
    for _ in range(4):
        estimates.add("task", 0.001, None, together=False)
    for _ in range(3):
        estimates.add("task", 0.3, None, together=True)
    while not estimates.is_short("task"):
        estimates.add("task", 0.001, None, together=False)
    for _ in range(ENOUGH):
        estimates.add("task", 0.001, None, together=True)
        assert estimates.is_short("task")


def test_the_first_that_go_together_may_be_long() -> None:
    """That counts at once, and again when enough have gone together."""
    estimates = RuntimeEstimates()
    for _ in range(5):
        estimates.add("task", 0.006, None, together=False)
    for _ in range(ENOUGH):
        estimates.add("task", 0.1, None, together=True)
        assert not estimates.is_short("task")
    assert estimates.of("task").mean == 0.1


def test_a_first_job_that_is_long_counts() -> None:
    """It may end its process each time, as one that takes too much memory does."""
    estimates = RuntimeEstimates()
    for process in range(1, 100, 2):
        estimates.add("task", 5.0, process, together=False)
        for _ in range(3):
            estimates.add("task", 0.001, process + 1, together=False)
        assert not estimates.is_short("task")


def test_what_is_known_of_others_is_not_forgotten() -> None:
    """A task whose jobs go together for the first time says nothing of the long jobs between them."""
    estimates = RuntimeEstimates()
    for _ in range(200):
        estimates.add("long", 2.0, None, together=False)
    estimates.add("short", 0.0002, None, together=True)
    assert estimates.is_short("short")
    assert not estimates.mix.is_short


def test_what_was_read_ahead_in_vain_makes_reads_narrow() -> None:
    """For some jobs."""
    estimates = RuntimeEstimates()
    for _ in range(100):
        estimates.add("task", 0.0001, None, together=True)
    estimates.narrow()
    for _ in range(3):
        estimates.add("task", 0.0001, None, together=True)
        assert not estimates.mix.is_short
    for _ in range(20):
        estimates.add("task", 0.0001, None, together=True)
    assert estimates.mix.is_short


def test_processes_are_not_remembered_without_end() -> None:
    """A worker that replaces its processes for years needs no more memory."""
    estimates = RuntimeEstimates()
    for process in range(2 * PROCESSES):
        estimates.add("task", 0.001, process, together=False)
    assert len(estimates._warm) <= PROCESSES
