"""Which slots are still sent: the rules of catching up, compared with counting forwards (R10)."""

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.schedules.catch_up import MOST, ON_TIME, RULES, CatchUp, Due, Passed, due_slots, passed_slots
from conventions.schedules.cron import cron
from conventions.schedules.interval import every
from conventions.schedules.slots import When, slots

TOKYO, NEW_YORK = ZoneInfo("Asia/Tokyo"), ZoneInfo("America/New_York")
TIMES: list[When] = [
    cron("0 9 * * *"), cron("*/20 * * * *"), cron("30 1,2 * * *"), cron("0 10 * * MON"), every(7), every(3600),
]  # fmt: skip

OCTOBER_25 = datetime(2026, 10, 25, tzinfo=UTC)

spans = st.tuples(  # cursor, now: among them the hour that New York has twice
    st.integers(0, 14 * 86400).map(lambda seconds: OCTOBER_25 + timedelta(seconds=seconds)), st.integers(0, 6000)
).map(lambda pair: (pair[0], pair[0] + timedelta(seconds=pair[1])))


def passed(slots: list[datetime]) -> Passed | None:
    """What is said of slots that are not sent."""
    return Passed(slots[0], slots[-1], len(slots)) if slots else None


@given(
    st.sampled_from(TIMES), st.sampled_from([TOKYO, NEW_YORK]), spans,
    st.sampled_from(RULES), st.none() | st.integers(1, 7000).map(lambda s: timedelta(seconds=s)),
)  # fmt: skip
def test_each_slot_is_sent_or_missed(
    when: When, zone: ZoneInfo, span: tuple[datetime, datetime], rule: CatchUp, within: timedelta | None
) -> None:
    """Once, in order; sent are those that the rule wants and the window allows, also where clocks go back."""
    cursor, now = span
    late = list(takewhile(lambda slot: slot <= now, slots(when, cursor, zone)))
    window = within or (ON_TIME if rule == "none" else timedelta(days=999))
    wanted = late if rule == "all" else late[-1:]
    sent = [slot for slot in wanted if now - slot <= window]
    found = due_slots(when, cursor, now, zone, rule=rule, within=within)
    assert found == Due(tuple(sent), passed([slot for slot in late if slot not in sent]))
    assert passed_slots(when, cursor, now, zone) == passed(late)


def test_three_days_away() -> None:
    """A daily schedule: the last day, each day, or none; a slot of a moment ago is on time."""
    cursor, now = datetime(2026, 11, 25, 9, tzinfo=TOKYO), datetime(2026, 11, 28, 9, 0, 30, tzinfo=TOKYO)
    days = [datetime(2026, 11, day, 9, tzinfo=TOKYO) for day in (26, 27, 28)]
    daily = TIMES[0]
    assert due_slots(daily, cursor, now, TOKYO) == Due((days[2],), Passed(days[0], days[1], 2))
    assert due_slots(daily, cursor, now, TOKYO, rule="all") == Due(tuple(days))
    assert due_slots(daily, cursor, now, TOKYO, rule="none").send == (days[2],)
    later = now + timedelta(minutes=1)
    assert due_slots(daily, cursor, later, TOKYO, rule="none") == Due((), Passed(days[0], days[2], 3))


@pytest.mark.parametrize("rule", RULES)
def test_a_long_absence_is_bounded(rule: CatchUp) -> None:
    """Of a year of seconds the newest are caught up or counted, and the first is named all the same."""
    cursor, now = datetime(2025, 11, 25, tzinfo=UTC), datetime(2026, 11, 25, tzinfo=UTC)
    found = due_slots(every(1), cursor, now, TOKYO, rule=rule)
    if rule == "all":
        assert found.send == tuple(now - timedelta(seconds=n) for n in reversed(range(MOST)))
        assert found.missed is None or found.missed.last < found.send[0]
        return
    assert found.send == (now,)
    assert found.missed == Passed(cursor + timedelta(seconds=1), now - timedelta(seconds=1), MOST)
