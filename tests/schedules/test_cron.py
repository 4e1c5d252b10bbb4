"""Slots of `cron`, compared with counting minutes one by one."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conventions.core.errors import ScheduleError
from conventions.schedules.cron import Cron, cron
from conventions.schedules.slots import slots

TOKYO = ZoneInfo("Asia/Tokyo")
NEW_YORK = ZoneInfo("America/New_York")
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
MINUTE = timedelta(minutes=1)


def first(count: int, expression: str, after: datetime, zone: ZoneInfo = TOKYO) -> list[str]:
    """The next slots of an expression as text."""
    return [slot.isoformat() for _, slot in zip(range(count), slots(cron(expression), after, zone), strict=False)]


# The reference: a field is the set of its numbers, and a slot is a minute whose wall clock is in all the sets.


def members(field: str, low: int, high: int, names: list[str] | None = None) -> set[int]:
    """The numbers that one cron field stands for."""
    found: set[int] = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        start, dash, end = ("*", "", "") if span == "*" else span.partition("-")
        number = (lambda text: names.index(text) + low if names and text in names else int(text)) if names else int
        first_one = low if start == "*" else number(start)
        last = high if start == "*" or (step and not dash) else number(end) if dash else first_one
        found |= set(range(first_one, last + 1, int(step or 1)))
    return found


def matches(expression: str, wall: datetime) -> bool:
    """Whether a wall-clock minute belongs to the expression."""
    minute, hour, day, month, weekday = expression.split()
    weekdays = {number % 7 for number in members(weekday, 0, 7, DAYS)}
    by_day = wall.day in members(day, 1, 31)
    by_weekday = wall.isoweekday() % 7 in weekdays
    either = "*" not in (day[0], weekday[0])
    return (
        wall.minute in members(minute, 0, 59)
        and wall.hour in members(hour, 0, 23)
        and wall.month in members(month, 1, 12, MONTHS)
        and (by_day or by_weekday if either else by_day and by_weekday)
    )


def brute(expression: str, start: datetime, minutes: int, zone: ZoneInfo) -> list[datetime]:
    """Every slot in (start, start + minutes], in UTC, found by looking at each minute."""
    fixed = not expression.startswith("*") and not expression.split()[1].startswith("*")
    found = set()
    for step in range(-240, minutes + 1):  # a slot in a missing hour moves by up to some hours
        moment = start.replace(second=0, microsecond=0) + step * MINUTE
        wall = moment.astimezone(zone)
        if not fixed:
            found |= {moment} if matches(expression, wall) else set()
            continue
        if wall.fold == 0 and matches(expression, wall):
            found.add(moment)
        before = (moment - MINUTE).astimezone(zone).replace(tzinfo=None)
        missing = before + MINUTE  # wall-clock minutes that a change of clocks leaves out are due at its end
        while missing < wall.replace(tzinfo=None):
            found |= {moment} if matches(expression, missing) else set()
            missing += MINUTE
    return sorted(slot for slot in found if start < slot <= start + minutes * MINUTE)


def field(low: int, high: int, names: list[str] | None = None) -> st.SearchStrategy[str]:
    """One cron field: numbers, names, ranges, steps, lists."""
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    single = number.map(str) | (st.sampled_from(names) if names else st.nothing())
    step = st.tuples(st.just("*") | span | number.map(str), st.integers(1, 20)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.just("*") | single | st.lists(single | span, min_size=1, max_size=3).map(",".join) | step


EXPRESSIONS = st.tuples(
    field(0, 59), field(0, 23), st.just("*") | field(1, 28), st.just("*") | field(1, 12, MONTHS), field(0, 7, DAYS)
).map(" ".join)
# Half of the moments lie near a change of clocks of the zones below.
ANY_MOMENT = st.integers(631_152_000, 2_208_988_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
MOMENTS = ANY_MOMENT | st.builds(
    lambda change, minutes: change + timedelta(minutes=minutes),
    st.sampled_from([datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC)])
    | st.sampled_from([datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)]),
    st.integers(-1500, 300),
)
ZONES = st.sampled_from([TOKYO, NEW_YORK, ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")])


@settings(deadline=None)  # a busy machine is no failure
@given(EXPRESSIONS, MOMENTS, ZONES)
@example("30 1 * * *", datetime(2026, 11, 1, 6, 15, tzinfo=UTC), NEW_YORK)  # within the repeated hour
@example("0 0 5-5/2 * *", datetime(2026, 3, 4, tzinfo=UTC), TOKYO)
@example("0,30 2,3 * * *", datetime(2026, 3, 8, 6, 59, tzinfo=UTC), NEW_YORK)  # around the missing hour
def test_slots_are_the_matching_minutes(expression: str, start: datetime, zone: ZoneInfo) -> None:
    """The slots of two days are exactly the minutes that match, each once, in order."""
    span = timedelta(days=2)
    found = []
    for slot in slots(cron(expression), start, zone):
        if slot.timestamp() > (start + span).timestamp():
            break
        found.append(slot.astimezone(UTC))
    assert found == brute(expression, start, 2 * 24 * 60, zone)


@settings(deadline=None)  # a busy machine is no failure
@given(EXPRESSIONS, MOMENTS, ZONES)
@example("30 1 * * *", datetime(2026, 11, 1, 6, 15, tzinfo=UTC), NEW_YORK)
@example("15 2 * * *", datetime(2026, 3, 8, 7, 0, tzinfo=UTC), NEW_YORK)
@example("0 0 * * *", datetime(2026, 11, 1, 4, 0, tzinfo=UTC), NEW_YORK)  # exactly on a slot
def test_the_latest_slot_is_the_last_before(expression: str, at: datetime, zone: ZoneInfo) -> None:
    """No slot lies between the latest slot and the moment it was asked for, and the slot itself is one."""
    when = cron(expression)
    latest = when.latest_slot(at, zone)
    assert latest is not None
    assert latest.timestamp() <= at.timestamp()
    following = when.next_slot(latest, zone)
    assert following is None or following.timestamp() > at.timestamp()
    before = when.next_slot(latest - timedelta(hours=4), zone)
    while before is not None and before.timestamp() < latest.timestamp():
        before = when.next_slot(before, zone)
    assert before == latest


def test_the_documents_schedules_are_in_tokyo_time() -> None:
    """The report at 09:00, the clean-up at 02:00 and the weekly report on Monday at 10:00, each in Tokyo (R10)."""
    wednesday = datetime(2026, 11, 25, 3, tzinfo=UTC)
    assert first(2, "0 9 * * *", wednesday) == ["2026-11-26T09:00:00+09:00", "2026-11-27T09:00:00+09:00"]
    assert first(1, "0 2 * * *", wednesday) == ["2026-11-26T02:00:00+09:00"]
    assert first(2, "0 10 * * MON", wednesday) == ["2026-11-30T10:00:00+09:00", "2026-12-07T10:00:00+09:00"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 13 * FRI", ["2026-02-06", "2026-02-13", "2026-02-20"]),  # both day fields: either
        ("0 0 29 2 *", ["2028-02-29", "2032-02-29", "2036-02-29"]),
        ("0 0 * * 0", ["2026-02-01", "2026-02-08", "2026-02-15"]),
        ("0 0 * * 7", ["2026-02-01", "2026-02-08", "2026-02-15"]),
        ("@weekly", ["2026-02-01", "2026-02-08", "2026-02-15"]),
        ("@yearly", ["2027-01-01", "2028-01-01", "2029-01-01"]),
        ("0 0 1 jan,jul *", ["2026-07-01", "2027-01-01", "2027-07-01"]),
        ("0 0 * * fri-sun", ["2026-01-31", "2026-02-01", "2026-02-06"]),
        ("0 0 L * *", ["2026-01-31", "2026-02-28", "2026-03-31"]),
    ],
)
def test_days_of_an_expression(expression: str, expected: list[str]) -> None:
    """Names, nicknames, Sunday as 0 and 7, leap days and the last day mean what cron says."""
    start = datetime(2026, 1, 30, 15, tzinfo=UTC)  # in Tokyo Saturday, 31 January, 00:00
    found = first(3, expression, start - timedelta(seconds=1))
    assert [text[:10] for text in found] == expected


def test_a_year_of_tokyo_days_has_one_slot_each() -> None:
    """The daily report is due once on each of a year's 365 days, always at 09:00."""
    start = datetime(2026, 1, 1, tzinfo=TOKYO)
    found = [slot for _, slot in zip(range(365), slots(cron("0 9 * * *"), start, TOKYO), strict=False)]
    assert [slot.date() for slot in found] == [date(2026, 1, 1) + timedelta(days=day) for day in range(365)]
    assert {slot.hour for slot in found} == {9}


@pytest.mark.parametrize(
    ("expression", "hint"),
    [
        ("0 0 31 2 *", "no such day ever comes"),
        ("0 0 31 4,6,9,11 *", "no such day ever comes"),
        ("61 * * * *", "minute cannot be '61'; it takes 0-59"),
        ("* * * *", "five fields are needed"),
        ("0 0 9 * * *", "five fields are needed"),
        ("@reboot", "five fields are needed"),
        ("0 0 * * 8", "where 0 and 7 are Sunday"),
        ("0 0 * FOO *", "1-12 or JAN-DEC"),
        ("*/0 * * * *", "minute cannot be"),
        ("", "five fields are needed"),
        ("0 0 20-10 * *", "day-of-month cannot be '20-10'"),
    ],
)
def test_a_wrong_expression_is_refused_with_the_fix(expression: str, hint: str) -> None:
    """What can never be due, or is no cron expression, is refused where it is written."""
    with pytest.raises(ScheduleError, match=hint):
        cron(expression)


def test_calendars_choose_among_the_days() -> None:
    """`only` keeps its days and `not_on` drops its days, in both directions of time."""
    holidays = {date(2026, 2, 2)}
    when = cron("0 9 1-3 * *", only=even_days, not_on=holidays)
    start = datetime(2026, 1, 5, tzinfo=TOKYO)
    assert [slot.date() for _, slot in zip(range(2), slots(when, start, TOKYO), strict=False)] == [
        date(2026, 3, 2),
        date(2026, 4, 2),
    ]
    latest = when.latest_slot(datetime(2026, 3, 1, tzinfo=TOKYO), TOKYO)
    assert latest is not None
    assert latest.date() == date(2026, 1, 2)
    assert str(when) == "0 9 1-3 * *, only even_days, not on 2026-02-02"


def even_days(day: date) -> bool:
    """Even days of the month."""
    return day.day % 2 == 0


def test_a_calendar_without_a_name_is_refused() -> None:
    """A calendar is shown by name, so a lambda is refused, and so is what is no calendar at all."""
    with pytest.raises(ScheduleError, match="named function"):
        cron("@daily", only=lambda day: day.day == 1)
    with pytest.raises(ScheduleError, match="no calendar"):
        cron("@daily", not_on="2026-01-01")  # type: ignore[arg-type]  # a text has `in`, but no days
    with pytest.raises(ScheduleError, match="no calendar"):
        cron("@daily", not_on=7)  # type: ignore[arg-type]  # refused when it runs, too


def test_a_calendar_that_never_allows_ends_the_search() -> None:
    """A calendar without any day gives no slot, rather than a search without end."""
    when = Cron("* * * * *", only=frozenset())
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert when.next_slot(now, TOKYO) is None
    assert when.latest_slot(now, TOKYO) is None


def test_a_schedule_can_be_read_in_words() -> None:
    """`words` says a schedule in English, `str` as it was written."""
    assert cron("@daily").words == "At 00:00 every day"
    assert str(cron("0  10 * * mon")) == "0 10 * * MON"
