"""How long queues are is looked at where minutes end, since what ended is counted by the minute."""

from hypothesis import given, settings
from hypothesis import strategies as st

from conventions.metrics.queue_length_history import BEFORE_ITS_END, EVERY, until_next_look


@settings(deadline=None)
@given(st.floats(0, 4e9), st.floats(0, 0.2))
def test_each_minute_has_a_look_at_its_end(start: float, takes: float) -> None:
    """Wherever it begins, and however long a look takes; and there are no more than a few."""
    now, looks = start, []
    while now < start + 200:
        now += until_next_look(now)
        looks.append(now)
        now += takes
    whole = range(int(start // 60) + 1, int(start // 60) + 3)
    for minute in whole:
        last = max(one for one in looks if one // 60 == minute)
        assert (minute + 1) * 60 - last <= 2 * BEFORE_ITS_END + 0.01
    assert len(looks) <= 200 / EVERY + 6
