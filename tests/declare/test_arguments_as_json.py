"""The payload: what is sent is checked, is JSON, and arrives as what it was."""

import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conventions.core.canonical_json import encode
from conventions.core.errors import PayloadError
from conventions.declare.arguments_as_json import Arguments, check_size, encode_result


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Color(Enum):
    RED = "red"


def arguments_of(function: Callable[..., Any]) -> Arguments:
    """The arguments of a task whose `run` is this function."""
    return Arguments("Task", function)


def is_number(value: Any) -> bool:
    """Whether this is digits, as text or bytes."""
    try:
        return isinstance(value, (str, bytes)) and math.isfinite(float(value))
    except ValueError:
        return False


def over_the_wire(payload: dict[str, Any]) -> dict[str, Any]:
    """What a worker gets: JSON, written and read by the standard library as Celery does."""
    arrived: dict[str, Any] = json.loads(json.dumps(payload, allow_nan=False))
    return arrived


def run_everyday(  # noqa: PLR0917  # as tasks have them
    self: object,
    user_id: int,
    template: str,
    day: date,
    rate: float = 1.5,
    note: str | None = None,
    *,
    at: datetime | None = None,
    size: Size = Size.SMALL,
) -> None:
    """A signature as tasks have them."""


EVERYDAY = arguments_of(run_everyday)
MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC).replace(tzinfo=None)

text = st.text(max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
moments = st.datetimes(timezones=st.just(UTC))

everyday = st.fixed_dictionaries(
    {"user_id": st.integers(), "template": text, "day": st.dates()},
    optional={
        "rate": finite,
        "note": st.none() | text,
        "at": st.none() | moments,
        "size": st.sampled_from(Size),
    },
)


@given(values=everyday, by_position=st.integers(0, 5))
@example(values={"user_id": 7, "template": "welcome", "day": date(2026, 1, 5)}, by_position=3)
def test_positional_and_keyword_calls_are_equal(values: dict[str, Any], by_position: int) -> None:
    """However arguments are passed, and whether a default is spelled out, the payload is the same, in one order."""
    positional = []
    for name in ("user_id", "template", "day", "rate", "note")[:by_position]:
        if name not in values:
            break
        positional.append(values[name])
    rest = {name: values[name] for name in reversed(list(values)) if name not in EVERYDAY.names[: len(positional)]}
    payload = EVERYDAY.bind(positional, rest)
    whole = {"rate": 1.5, "note": None, "at": None, "size": Size.SMALL} | values
    assert payload == EVERYDAY.bind((), values) == EVERYDAY.bind((), whole)
    assert list(payload) == list(EVERYDAY.names)
    assert encode(payload) == encode(EVERYDAY.bind((), whole))
    assert EVERYDAY.load((), over_the_wire(payload)) == whole


def test_a_payload_is_json_with_its_defaults() -> None:
    """What is sent for a usual call."""
    assert EVERYDAY.bind((7, "welcome"), {"day": date(2026, 1, 5)}) == {
        "user_id": 7,
        "template": "welcome",
        "day": "2026-01-05",
        "rate": 1.5,
        "note": None,
        "at": None,
        "size": "small",
    }


def test_a_new_argument_with_a_default_runs_old_messages() -> None:
    """A message of the time before a deploy gets the default; one that the new signature cannot take is refused."""
    assert EVERYDAY.load((), {"user_id": 7, "template": "a", "day": "2026-01-05"})["rate"] == 1.5
    with pytest.raises(PayloadError, match="gone"):
        EVERYDAY.load((), {"user_id": 7, "template": "a", "day": "2026-01-05", "gone": 1})
    with pytest.raises(PayloadError, match="day"):
        EVERYDAY.load((), {"user_id": 7, "template": "a"})


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((), {}, "user_id"),
        ((7,), {}, "template"),
        ((7, "a", date(2026, 1, 5)), {"users": 1}, "users"),
        ((7, "a", date(2026, 1, 5)), {"user_id": 7}, "user_id"),
        ((7, "a", date(2026, 1, 5), 1.0, None, None), {}, "positional"),
    ],
)
def test_missing_and_extra_arguments_are_type_errors(args: tuple[Any, ...], kwargs: dict[str, Any], named: str) -> None:
    """As Python would say it; the message names the argument and the signature."""
    with pytest.raises(TypeError, match=named) as raised:
        EVERYDAY.bind(args, kwargs)
    assert not isinstance(raised.value, PayloadError)
    assert "template: str" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user_id", "7"),
        ("user_id", 7.0),
        ("user_id", True),
        ("user_id", None),
        ("template", 7),
        ("day", datetime(2026, 1, 5, 9, tzinfo=UTC)),
        ("day", MIDNIGHT),
        ("day", 0),
        ("day", "5 January"),
        ("rate", "1.5"),
        ("rate", float("nan")),
        ("rate", float("inf")),
        ("note", ["text"]),
        ("at", date(2026, 1, 5)),
        ("at", 1767571200),
        ("size", "medium"),
        ("template", "\ud800"),
        ("note", "text\udfff"),
        ("user_id", 10**5000),
    ],
    ids=lambda one: one if isinstance(one, str) and one.isascii() else type(one).__name__,
)
def test_a_wrong_argument_is_refused_by_name_without_its_value(name: str, value: Any) -> None:
    """What could merely be converted is refused; the message has the argument's name, not what it holds."""
    right: dict[str, Any] = {"user_id": 7, "template": "a", "day": date(2026, 1, 5)}
    with pytest.raises(PayloadError, match="Task") as raised:
        EVERYDAY.bind((), right | {name: value})
    assert isinstance(raised.value, ValueError)
    if isinstance(value, str) and len(value) > 3:
        assert value not in str(raised.value)


def test_a_wrong_type_names_the_argument_and_what_was_given() -> None:
    """A message that can be acted on."""
    with pytest.raises(PayloadError, match=r"'user_id'.*valid integer.*got str"):
        EVERYDAY.bind(("seven", "a", date(2026, 1, 5)))


def test_all_wrong_arguments_are_named_at_once() -> None:
    """One call, every fault."""
    with pytest.raises(PayloadError, match=r"user_id.*template.*day"):
        EVERYDAY.bind(("7", 7, "7"))


def run_anything(self: object, value: Any) -> None:
    """An argument that may be anything."""


def cycle() -> list[Any]:
    """A list that holds itself."""
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "value",
    [object(), lambda: 1, cycle(), float("nan"), {"a": float("inf")}, b"\xff", "\ud800", {"b", "a"}],
    ids=lambda one: type(one).__name__,
)
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    """At the call, as a PayloadError, whatever the library below makes of it."""
    with pytest.raises(PayloadError):
        arguments_of(run_anything).bind((value,))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
odd_values = st.recursive(
    st.floats()
    | st.text(st.characters(codec=None, categories=["Cs", "L"]), max_size=3)
    | st.binary(max_size=3)
    | st.none(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.integers() | st.floats() | st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(value=json_values)
def test_any_json_passes_unchanged_where_anything_may(value: Any) -> None:
    """An argument of type `Any` carries every JSON value."""
    payload = arguments_of(run_anything).bind((value,))
    assert payload == {"value": value}
    assert arguments_of(run_anything).load((), over_the_wire(payload)) == {"value": value}


@given(value=odd_values)
def test_an_odd_value_is_carried_as_json_or_refused(value: Any) -> None:
    """Nothing else than PayloadError comes out, and what is accepted is JSON that can be encoded."""
    try:
        payload = arguments_of(run_anything).bind((value,))
    except PayloadError:
        return
    encode(over_the_wire(payload))


@given(value=odd_values.filter(lambda value: not is_number(value)))  # pydantic takes "0" for a day in 1970
@example(value=b"\x80")  # kombu's JSON can carry bytes
@example(value="\ud800")  # as any JSON can
def test_an_odd_payload_that_arrives_is_refused_as_such(value: Any) -> None:
    """A foreign message of any shape is a PayloadError, and so a dead letter, never another error."""
    with pytest.raises(PayloadError):
        EVERYDAY.load((), {"user_id": 7, "template": "a", "day": value})


@pytest.mark.parametrize("levels", [230, 600, 5000])
def test_a_payload_that_is_too_deep_is_refused_as_such(levels: int) -> None:
    """However deep it is, and whichever library finds that first."""
    deep: list[Any] = []
    for _ in range(levels):
        deep = [deep]
    anything = arguments_of(run_anything)
    reads: list[Callable[[], Any]] = [lambda: anything.load((), {"value": deep}), lambda: anything.bind((deep,))]
    for read in reads:
        with pytest.raises(PayloadError) as found:
            read()
        assert "argument ''" not in str(found.value)
    (name,) = anything.faults({"value": deep})
    assert name in ("value", "")


@pytest.mark.parametrize(
    "value", [b"bytes", UUID(int=7), date(2026, 1, 5), Decimal("1.5"), Path("/srv"), timedelta(1), Color.RED]
)
def test_an_object_is_no_text(value: Any) -> None:
    """An argument declared as text takes text, not whatever JSON would make a text of."""
    with pytest.raises(PayloadError, match="template"):
        EVERYDAY.bind((7, value, date(2026, 1, 5)))


def test_check_gives_the_objects_that_run_declares() -> None:
    """A direct call in a test gets Python objects, from either form."""
    found = EVERYDAY.check((7, "a"), {"day": "2026-01-05", "size": "large"})
    assert found["day"] == date(2026, 1, 5)
    assert found["size"] is Size.LARGE
    with pytest.raises(PayloadError):
        EVERYDAY.check((7, "a"), {"day": 5})


def test_the_size_of_a_payload_is_limited() -> None:
    """Counted in bytes of JSON; the message says what to do instead."""
    payload = {"text": "é" * 10}
    size = len(encode(payload))
    check_size("Task", encode(payload), size)
    with pytest.raises(PayloadError, match=r"31 bytes, the limit is 30; store the data, pass its id"):
        check_size("Task", encode(payload), size - 1)
    assert size == 31


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_is_no_json_is_not_encoded(value: Any) -> None:
    """Not even as a result, where nothing was declared."""
    with pytest.raises((ValueError, TypeError)):
        encode({"value": [value]})


@given(values=st.dictionaries(text, st.integers() | text, max_size=5))
def test_equal_payloads_are_equal_bytes(values: dict[str, Any]) -> None:
    """The order of keys does not matter; the bytes are JSON."""
    assert encode(values) == encode(dict(reversed(values.items())))
    assert json.loads(encode(values)) == values


def _scalars(number: int, ratio: float, name: str, on: bool, some: float | None = None) -> None:
    """Arguments that are JSON as they are."""


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(st.characters()),
    st.just("\ud800"),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(), st.integers(), max_size=1),
)


@given(
    st.fixed_dictionaries({"number": _VALUES, "ratio": _VALUES, "name": _VALUES, "on": _VALUES, "some": _VALUES})
    | st.fixed_dictionaries(
        {
            "number": st.integers(),
            "ratio": st.floats() | st.integers(),
            "name": st.text(),
            "on": st.booleans(),
            "some": st.none() | st.floats(),
        }
    )
)
@example({"number": 1, "ratio": 1, "name": "\ud800", "on": True, "some": None})
@example({"number": 1, "ratio": Decimal(1), "name": "", "on": True, "some": None})
@example({"number": 1, "ratio": math.nan, "name": "é", "on": True, "some": math.inf})
def test_numbers_and_text_are_read_as_from_json(values: dict[str, Any]) -> None:
    """The short way for what JSON has as it is, gives what the long way would, or leaves it to that."""
    short, long = Arguments("T", _scalars), Arguments("T", _scalars)
    vars(long)["_is_plain"] = False
    assert repr(_read(short, values)) == repr(_read(long, values))


def _read(arguments: Arguments, values: dict[str, Any]) -> Any:
    try:
        return arguments.load((), values)
    except PayloadError as error:
        return str(error)


@pytest.mark.parametrize("result", [None, 7, "x" * 8, ["x" * 6], {"a": "é"}, [[], [], []]])
def test_a_result_within_the_limit_is_written_once(result: Any) -> None:
    """As it is recorded."""
    assert encode_result("Task", result, 10) == encode(result)


@pytest.mark.parametrize(
    "result", ["x" * 9, "é" * 5, ["x" * 7], {"a": {"b": [1, 2]}}, [1] * 6, 10**10, [[] for _ in range(11)]]
)
def test_a_result_beyond_the_limit_is_refused(result: Any) -> None:
    """Its error names the limit and what to do."""
    with pytest.raises(
        PayloadError, match=r"Task: the result has .* bytes, the limit is 10; .* CONVENTIONS_RESULT_LIMIT"
    ):
        encode_result("Task", result, 10)


def test_a_result_that_is_far_too_large_is_not_written() -> None:
    """Not once: what cannot be written is not even looked at."""
    with pytest.raises(PayloadError, match="more than 10 bytes"):
        encode_result("Task", {"a": ["x" * 11, object()]}, 10)


def test_a_result_that_is_part_of_itself() -> None:
    """It is refused for that, not for its size."""
    circular: list[Any] = [1]
    circular.append(circular)
    with pytest.raises(ValueError, match="Circular"):
        encode_result("Task", circular, 10)


HALVES: list[tuple[Any, str]] = [
    ({"a": {"\ud800": 1}}, r"'a.\\ud800'"),
    ({"a": {"rows": [1, {"name": "x\udfff"}]}}, "'a.rows.1.name'"),
    ({"a": {}, "name": "\ud800"}, "'name'"),
]


@pytest.mark.parametrize("day", [date(2026, 1, 1), "2026-01-01"])
@pytest.mark.parametrize(("values", "where"), HALVES)
def test_half_a_character_is_refused_and_named(values: dict[str, Any], where: str, day: Any) -> None:
    """Wherever it stands, on its way out and on its way in: JSON can name it, and UTF-8 cannot write it."""

    def run(self: Any, a: dict[str, Any], day: date, name: str = "") -> None: ...

    arguments = Arguments("Odd", run)
    for check in (arguments.bind, arguments.load):
        if check == arguments.bind or isinstance(day, str):
            with pytest.raises(PayloadError, match=f"{where} holds half a character"):
                check((), values | {"day": day})
    assert "half a character" in arguments.faults(values | {"day": "2026-01-01"})[""]


def test_the_character_for_what_cannot_be_read_is_text_like_any_other() -> None:
    """It is what half a character would be replaced by."""

    def run(self: Any, a: dict[str, Any]) -> None: ...

    values = {"a": {"\N{REPLACEMENT CHARACTER}": "\N{REPLACEMENT CHARACTER}"}}
    assert Arguments("Odd", run).load((), Arguments("Odd", run).bind((), values)) == values
