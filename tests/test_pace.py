"""`Pace`: how many jobs may go together follows from how long they take."""

from hypothesis import given
from hypothesis import strategies as st

from conventions.pace import TOGETHER, Pace

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
    for _ in range(40):
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
