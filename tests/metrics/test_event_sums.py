"""What is counted of events, and what a histogram says."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.core.error_text import FailureText
from conventions.metrics.event_sums import Sums, added, errors_in
from conventions.metrics.histogram import RUN, RUN_BOUNDS, WAIT, WAIT_BOUNDS, Histogram
from conventions.metrics.series import Series
from conventions.records.journal import Event
from tests.recorded import event

AT = 1_700_000_000_000
MINUTE = AT // 60_000
SEND = Series("Send", "mail")


def sums_of(*events: Event, at: Sequence[int] = (), split_after: float = 60.0) -> Sums:
    """What is counted of these, one each second unless told."""
    sums = Sums(split_after)
    for number, one in enumerate(events):
        sums.add(one, at[number] if at else AT + number)
    return sums


def test_each_kind_is_counted_by_task_queue_and_minute() -> None:
    """As one row of SQL each."""
    sums = sums_of(
        event(), event("m2"), event("m3", "dead"), event("m4", queue="other"), at=[AT, AT + 1, AT, AT + 60_000]
    )
    mail, other = sums.minutes[MINUTE, SEND], sums.minutes[MINUTE + 1, Series("Send", "other")]
    assert (mail["succeeded"], mail["dead"], other["succeeded"]) == (2, 1, 1)
    assert dict(errors_in(mail)) == {"ValueError": 1}


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [
        (0, "0.005"),
        (-3.0, "0.005"),
        (0.005, "0.005"),
        (0.0051, "0.01"),
        (60, "60"),
        (60.1, "90"),
        (21600, "21600"),
        (21601, "inf"),
    ],
)
def test_a_time_falls_into_the_bucket_that_ends_with_it(seconds: float, bound: str) -> None:
    """As Prometheus's `le`: less, or equal."""
    counts = sums_of(event(runtime=seconds)).minutes[MINUTE, SEND]
    assert {name for name in counts if name.startswith("run:") and name != "run:sum"} == {f"run:{bound}"}


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), 1e300, None])
def test_a_time_that_is_none_is_not_measured(odd: float | None) -> None:
    """The event is counted all the same."""
    counts = sums_of(event(runtime=odd, wait=odd)).minutes[MINUTE, SEND]
    assert counts == {"succeeded": 1}


def test_what_runs_longer_than_told_is_overlong() -> None:
    """The bound itself is not."""
    counts = sums_of(event(runtime=5.0), event("m2", runtime=5.001), split_after=5.0).minutes[MINUTE, SEND]
    assert counts["overlong"] == 1


times = st.lists(st.floats(0, 100_000, allow_nan=False), max_size=30)


@given(first=times, second=times)
def test_parts_add_up_to_the_whole(first: list[float], second: list[float]) -> None:
    """In whatever parts the journal is counted, to the microsecond."""

    def counts(*some: float) -> dict[str, int]:
        sums = sums_of(
            *(event(f"m{number}", runtime=one, wait=one / 2) for number, one in enumerate(some)), at=[AT] * len(some)
        )
        return added(list(sums.minutes.values()))

    assert added([counts(*first), counts(*second)]) == counts(*first, *second)


@given(some=st.lists(st.floats(0, 20_000, allow_nan=False), min_size=1, max_size=50), share=st.floats(0, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(some: list[float], share: float) -> None:
    """And the mean is exact."""
    counts = added(
        list(
            sums_of(*(event(f"m{n}", runtime=one) for n, one in enumerate(some)), at=[AT] * len(some)).minutes.values()
        )
    )
    found = Histogram.of(RUN, counts)
    assert found.count == len(some)
    assert found.mean == pytest.approx(sum(some) / len(some), abs=1e-6)
    true = sorted(some)[max(0, min(len(some) - 1, -int(-share * len(some) // 1) - 1))]
    upper = next(bound for bound in RUN_BOUNDS if true <= bound)
    lower = max((bound for bound in RUN_BOUNDS if bound < upper), default=0.0)
    quantile = found.quantile(share)
    assert quantile is not None
    assert lower <= quantile <= upper


def test_no_quantile_is_longer_than_all_of_them_together() -> None:
    """Twenty waits of an hour each do not make one of six."""
    one = Histogram.of(RUN, {"run:21600": 1, "run:sum": 7_300_000_000})
    assert one.quantile(0.95) == 7300
    assert Histogram.of(WAIT, {"wait:inf": 1, "wait:sum": 90_000_000_000}).quantile(0.5) == WAIT_BOUNDS[-1]


def test_without_events_there_is_no_time() -> None:
    """And none beyond the last bound is guessed."""
    nothing = Histogram.of(WAIT, {})
    assert (nothing.count, nothing.mean, nothing.quantile(0.5)) == (0, None, None)
    assert Histogram.of(WAIT, {"wait:inf": 3, "wait:sum": 600_000_000_000}).quantile(0.5) == WAIT_BOUNDS[-1]


def failure(number: int = 1, **values: Any) -> FailureText:
    """A failure of one of several causes."""
    return FailureText(
        **{
            "error": "ConnectionRefusedError",
            "error_message": f"no {number}",
            "traceback": "",
            "fingerprint": f"f{number}",
        }
        | values
    )


def test_a_cause_has_its_first_and_last_failure_by_worker_and_release() -> None:
    """Those that are tried again, and those that are dead, together."""
    who = {"worker": "w1@a", "release": "r1", "failure": failure()}
    sums = sums_of(
        event("m1", "retried", **who), event("m1", "retried", attempt=2, **who), event("m2", "dead", **who | {"release": "r2"}),
        event("m3", "retried", **who | {"failure": failure(2)}), at=[AT + 5, AT + 2, AT + 9, AT],
    )  # fmt: skip
    one = sums.causes["f1"]
    assert (one.first, one.last, one.retried, one.dead, one.example) == (AT + 2, AT + 9, 2, 1, "m2")
    assert (one.workers, one.releases) == ({"w1@a": 3}, {"r1": 2, "r2": 1})
    assert set(sums.causes) == {"f1", "f2"}


@pytest.mark.parametrize(
    ("after", "waits"),
    [
        ([], True),
        ([("hung", 2)], True),
        ([("superseded", 1)], True),
        ([("retried", 2)], True),
        ([("succeeded", 2)], False),
        ([("dead", 2)], False),
        ([("cancelled", 2)], False),
        ([("purged", 0)], False),
        ([("lost", 0)], False),
        ([("succeeded", 2), ("retried", 1)], True),  # redriven, and failed again
    ],
)
def test_who_is_tried_again(after: list[tuple[str, int]], waits: bool) -> None:
    """From its first failure until its end, whatever becomes of it meanwhile."""
    sums = sums_of(event("m1", "retried"), *(event("m1", kind, attempt=attempt) for kind, attempt in after))
    assert sums.retrying == {"m1": ("f" * 16, "mail") if waits else None}


def test_a_first_success_says_nothing_of_who_is_tried_again() -> None:
    """Nearly all jobs are such: their ids are not sent to the server."""
    assert sums_of(event()).retrying == {}
    assert sums_of(event(generation=1)).retrying == {"m1": None}


def test_the_first_attempt_of_each_release_is_kept() -> None:
    """It marks a deploy."""
    assert sums_of(event(release="a"), event("m2", release="b"), event("m3", release="a")).releases == {
        "a": AT,
        "b": AT + 1,
    }


def test_counts_are_named_as_text_that_redis_keeps() -> None:
    """Without a separator that the reader needs."""
    assert "\x1f" not in json.dumps([*sums_of(event(runtime=1, wait=1)).minutes[MINUTE, SEND]])
