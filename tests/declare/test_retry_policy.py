"""How often, and after how long: the arithmetic of retries (R15, R16)."""

import itertools
import string
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conventions.core.errors import (
    BusinessError,
    CredentialInPayload,
    IdempotencyConflict,
    LeaseLost,
    PayloadError,
    PermissionDenied,
)
from conventions.declare.retry_policy import Decision, ErrorKind, RetryPolicy, retry_after

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ERRORS: dict[str, Exception] = {
    "network": ConnectionRefusedError(),
    "other": ValueError(),
    "never": BusinessError(),
}

chances = st.floats(0, 1, exclude_max=True)
attempts_made = st.integers(1, 10_000)


@st.composite
def policies(draw: st.DrawFn, jitter: st.SearchStrategy[float] = st.floats(0, 1)) -> RetryPolicy:  # noqa: B008  # a strategy is a value
    """Any policy that may exist."""
    first = draw(st.floats(0, 1e6))
    return RetryPolicy(
        attempts=draw(st.integers(1, 50)),
        network_attempts=draw(st.integers(1, 50)),
        first_wait=first,
        max_wait=draw(st.floats(first, 1e7)),
        factor=draw(st.floats(1, 1e9)),
        jitter=draw(jitter),
    )


class Answered(Exception):
    """An answer of a web server, as httpx and requests raise it."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(status)
        self.response = SimpleNamespace(status_code=status, headers=headers)


def waits(policy: RetryPolicy, error: Exception, chance: float | None = None) -> list[float]:
    """The waits of a message each of whose attempts ends with this error."""
    kind = policy.kind_of(error)
    found: list[float] = []
    for attempt in itertools.count(1):
        decision = policy.decide(error, {kind: attempt}, chance=chance)
        if decision.wait is None:
            assert attempt == len(found) + 1
            return found
        found.append(decision.wait)
    raise AssertionError


def test_five_attempts_wait_2_4_8_and_16_seconds() -> None:
    """The default policy without jitter: five executions, four waits (R15)."""
    assert waits(RetryPolicy(jitter=0), ValueError()) == [2, 4, 8, 16]


def test_ten_attempts_for_network_errors_wait_up_to_60_seconds() -> None:
    """Ten executions, nine waits, none above a minute (R16)."""
    assert waits(RetryPolicy(jitter=0), ConnectionRefusedError()) == [2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_a_business_error_is_never_tried_again() -> None:
    """One execution, no wait (R16)."""
    assert waits(RetryPolicy(), BusinessError("no such user")) == []


@pytest.mark.parametrize("cls", [PayloadError, CredentialInPayload, IdempotencyConflict, LeaseLost, PermissionDenied])
def test_our_own_refusals_are_never_tried_again(cls: type[Exception]) -> None:
    """They end the same way each time, whatever `never` and `on` say."""
    assert waits(RetryPolicy(never=(), on=(Exception,)), cls("refused")) == []


@given(policy=policies(), made=attempts_made, chance=chances)
@example(policy=RetryPolicy(factor=1e6, max_wait=1e9), made=60, chance=0.5)
@example(policy=RetryPolicy(first_wait=0, max_wait=0), made=1, chance=0.0)
@example(policy=RetryPolicy(first_wait=60, max_wait=60, jitter=1), made=3, chance=0.99)
def test_a_wait_is_never_outside_its_limits(policy: RetryPolicy, made: int, chance: float) -> None:
    """For any policy, attempt and jitter the wait lies in [first_wait, max_wait]."""
    assert policy.first_wait <= policy.wait_after(made, chance) <= policy.max_wait  # type: ignore[operator]  # numbers by now


@given(policy=policies(jitter=st.just(0.0)), made=attempts_made, chance=chances)
def test_waits_do_not_shrink_without_jitter(policy: RetryPolicy, made: int, chance: float) -> None:
    """Without jitter each wait is at least the one before, and chance plays no part."""
    assert policy.wait_after(made) <= policy.wait_after(made + 1)
    assert policy.wait_after(made) == policy.wait_after(made, chance)


@given(chance=chances, made=st.integers(1, 9))
def test_jitter_is_a_quarter_at_the_most(chance: float, made: int) -> None:
    """The default jitter moves a wait by up to 25 %, within the limits."""
    exact, moved = RetryPolicy(jitter=0).wait_after(made), RetryPolicy().wait_after(made, chance)
    assert 0.75 * exact <= moved <= 1.25 * exact


def test_jitter_spreads_waits() -> None:
    """Two messages that failed together do not come back together."""
    assert len({RetryPolicy().decide(ValueError(), {"other": 2}).wait for _ in range(20)}) > 10


@pytest.mark.parametrize(
    ("errors", "ends"),
    [
        (["network"] * 9 + ["never"], [False] * 9 + [True]),
        (["network"] * 10, [False] * 9 + [True]),
        (["network"] * 9 + ["other"], [False] * 10),
        (["other"] * 4 + ["network"], [False] * 5),
        (["other"] * 4 + ["network"] * 9, [False] * 13),
        (["other", "network"] * 4 + ["other"], [False] * 8 + [True]),
        (["never"], [True]),
    ],
)
def test_each_kind_of_error_is_counted_for_itself(errors: list[str], ends: list[bool]) -> None:
    """Nine network errors and then a business error: dead at once; a lone other error after them is tried again."""
    counts: dict[str, int] = {}
    got = []
    for name in errors:
        counts[name] = counts.get(name, 0) + 1
        got.append(not RetryPolicy().decide(ERRORS[name], counts).retry)
    assert got == ends


@given(errors=st.lists(st.sampled_from(["network", "other"]), max_size=40))
def test_no_message_is_tried_more_often_than_its_limits_together(errors: list[str]) -> None:
    """However errors alternate, there are at most 4 + 9 retries and one last attempt."""
    counts: dict[str, int] = {}
    for made, name in enumerate(errors, start=1):
        counts[name] = counts.get(name, 0) + 1
        if not RetryPolicy().decide(ERRORS[name], counts).retry:
            break
        assert made <= 13


def test_the_wait_grows_with_all_attempts_together() -> None:
    """A change of the kind of error does not start the back-off again."""
    decision = RetryPolicy(jitter=0).decide(ValueError(), {"network": 3, "other": 1})
    assert decision.wait == 16


@pytest.mark.parametrize("attempts", [1, 2, 7])
def test_attempts_count_executions(attempts: int) -> None:
    """`attempts` are executions in all, so there is one wait less."""
    assert len(waits(RetryPolicy(attempts=attempts), ValueError())) == attempts - 1
    assert len(waits(RetryPolicy(network_attempts=attempts), TimeoutError())) == attempts - 1


def test_on_and_never_choose_by_class() -> None:
    """What is not in `on` is never retried; `never` wins over `on`; subclasses count."""
    policy = RetryPolicy(on=(LookupError,), never=(KeyError,))
    assert policy.kind_of(IndexError()) is ErrorKind.OTHER
    assert policy.kind_of(KeyError()) is ErrorKind.NEVER
    assert policy.kind_of(ValueError()) is ErrorKind.NEVER
    assert policy.kind_of(ConnectionRefusedError()) is ErrorKind.NEVER
    assert RetryPolicy().kind_of(KeyboardInterrupt()) is ErrorKind.NEVER


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("made", [1, 5, 10, 100])
def test_should_retry_wins_over_the_policy(error: Exception, made: int) -> None:
    """A yes tries again beyond every limit, a no ends it; the wait stays within the policy's limits."""
    policy = RetryPolicy()
    counts: dict[str, int] = {policy.kind_of(error): made}
    yes = policy.decide(error, counts, overruled=True)
    assert yes.wait is not None
    assert 2 <= yes.wait <= 60
    assert policy.decide(error, counts, overruled=False) == Decision(
        policy.kind_of(error), None, "should_retry said no"
    )


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("7", 7),
        (" 30 ", 30),
        ("0", 2),
        ("1", 2),
        ("3600", 60),
        ("9" * 400, 60),
        (format_datetime(NOW + timedelta(seconds=20), usegmt=True), 20),
        (format_datetime(NOW + timedelta(hours=2), usegmt=True), 60),
        (format_datetime(NOW - timedelta(hours=2), usegmt=True), 2),
        ("Mon, 05 Jan 2026 18:00:20 +0900", 20),
        ("Mon, 05 Jan 2026 09:00:20 -0000", 20),
    ],
)
def test_retry_after_is_honored_within_the_limits(status: int, header: str, wait: float) -> None:
    """Seconds or a date; never below first_wait or above max_wait."""
    error = Answered(status, {"Retry-After": header})
    assert RetryPolicy().decide(error, {"other": 1}, now=NOW).wait == wait


@pytest.mark.parametrize("header", ["", "soon", "-5", "1.5", "²", "٣", "Mon, 99 Jan 2026 09:00:00 GMT", "," * 50])
def test_a_retry_after_that_makes_no_sense_is_ignored(header: str) -> None:
    """The policy's own wait is taken, and the job does not fail because of a header."""
    error = Answered(503, {"Retry-After": header})
    assert RetryPolicy(jitter=0).decide(error, {"other": 3}, now=NOW).wait == 8


@given(header=st.text(string.printable, max_size=60) | st.text(max_size=10))
@example(header="Mon, 01 Jan 99999999999999999999 00:00:00 GMT")
@example(header="Mon, 05 Jan 2026 09:00:00 +99999999999999999999")
def test_no_header_can_break_the_decision(header: str) -> None:
    """Whatever a server answers, there is a wait within the limits."""
    decision = RetryPolicy().decide(Answered(429, {"Retry-After": header}), {"other": 1}, now=NOW)
    assert decision.wait is not None
    assert 2 <= decision.wait <= 60


@pytest.mark.parametrize(
    "error", [Answered(500, {"Retry-After": "9"}), Answered(429, {}), ValueError(), OSError("no response")]
)
def test_retry_after_counts_only_for_429_and_503(error: Exception) -> None:
    """Other answers, and errors that are no answers, do not ask for a wait."""
    assert retry_after(error, NOW) is None


def test_retry_after_does_not_add_attempts() -> None:
    """The last attempt stays the last."""
    assert not RetryPolicy().decide(Answered(429, {"Retry-After": "5"}), {"other": 5}).retry


def test_retry_after_of_a_real_httpx_answer_is_read() -> None:
    """The exception and header class of httpx, whatever the header's case."""
    httpx = pytest.importorskip("httpx")
    response = httpx.Response(
        503, headers={"retry-after": "11"}, request=httpx.Request("GET", "http://service.example/")
    )
    with pytest.raises(httpx.HTTPStatusError) as raised:
        response.raise_for_status()
    assert RetryPolicy().decide(raised.value, {"other": 1}).wait == 11


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"attempts": 0}, "attempts"),
        ({"attempts": -1}, "attempts"),
        ({"network_attempts": 0}, "network_attempts"),
        ({"first_wait": -1}, "first_wait"),
        ({"first_wait": timedelta(seconds=-1)}, "first_wait"),
        ({"first_wait": float("nan")}, "first_wait"),
        ({"max_wait": 1}, "max_wait"),
        ({"max_wait": float("nan")}, "max_wait"),
        ({"max_wait": timedelta(seconds=1)}, "max_wait"),
        ({"factor": 0.5}, "factor"),
        ({"factor": float("nan")}, "factor"),
        ({"jitter": -0.1}, "jitter"),
        ({"jitter": 1.1}, "jitter"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(arguments: dict[str, Any], named: str) -> None:
    """At construction, so at import of the task; the message names the argument."""
    with pytest.raises(ValueError, match=named):
        RetryPolicy(**arguments)


def test_waits_may_be_timedeltas() -> None:
    """A timedelta means the same as its seconds."""
    given_as_time = RetryPolicy(first_wait=timedelta(seconds=3), max_wait=timedelta(minutes=2))
    assert given_as_time == RetryPolicy(first_wait=3, max_wait=120)
    assert given_as_time.wait_after(1, 0.5) == 3


def test_a_policy_is_a_value() -> None:
    """Equal policies are equal, hash alike, and cannot be changed."""
    assert RetryPolicy() == RetryPolicy()
    assert len({RetryPolicy(), RetryPolicy(), RetryPolicy(attempts=3)}) == 2
    with pytest.raises(AttributeError):
        RetryPolicy().attempts = 3  # type: ignore[misc]  # what is tested


def test_a_decision_says_why() -> None:
    """The reason of a decision is a text for people."""
    policy = RetryPolicy()
    assert policy.decide(ValueError(), {"other": 2}).reason == "attempt 2 of 5"
    assert policy.decide(BusinessError(), {"never": 1}).reason == "never retried"
    assert policy.decide(ValueError(), {"other": 9}, overruled=True).reason == "should_retry said yes"
