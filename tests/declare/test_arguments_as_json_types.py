"""Every type that an argument may have: sent as JSON, it arrives as what it was."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PlainSerializer
from typing_extensions import TypedDict  # pydantic wants this one on Python 3.11

from conventions.core.errors import PayloadError
from conventions.declare.arguments_as_json import Arguments


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Color(Enum):
    RED = "red"
    BLUE = 7


@dataclass(frozen=True)
class Address:
    street: str
    since: date | None = None


class Point(NamedTuple):
    x: int
    y: float


class Options(TypedDict):
    name: str
    until: datetime


class Order(BaseModel):
    id: UUID
    lines: list[tuple[str, Decimal]]


def arguments_of(function: Callable[..., Any]) -> Arguments:
    """The arguments of a task whose `run` is this function."""
    return Arguments("Task", function)


def over_the_wire(payload: dict[str, Any]) -> dict[str, Any]:
    """What a worker gets: JSON, written and read by the standard library as Celery does."""
    arrived: dict[str, Any] = json.loads(json.dumps(payload, allow_nan=False))
    return arrived


text = st.text(max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
# Fixed offsets of whole minutes: ISO 8601 holds no others, and an hour that the clock repeats equals nothing (PEP 495).
zones = st.just(UTC) | st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(timezones=zones)
exact = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12)

VALUES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, finite),
    (bool, st.booleans()),
    (str, text),
    (bytes, text.map(str.encode)),
    (None, st.none()),
    (date, st.dates()),
    (datetime, moments),
    (datetime, st.datetimes()),
    (time, st.times()),
    (timedelta, st.timedeltas(timedelta(days=-999_999), timedelta(days=999_999))),
    (Decimal, exact),
    (UUID, st.uuids()),
    (Path, st.sampled_from([Path("/srv/a"), Path("b/c.csv")])),
    (Size, st.sampled_from(Size)),
    (Level, st.sampled_from(Level)),
    (Color, st.sampled_from(Color)),
    (Literal["a", 1], st.sampled_from(["a", 1])),
    (int | str, st.integers() | text),
    (date | None, st.dates() | st.none()),
    (list[date], st.lists(st.dates(), max_size=3)),
    (tuple[int, date], st.tuples(st.integers(), st.dates())),
    (tuple[int, ...], st.lists(st.integers(), max_size=3).map(tuple)),
    (dict[str, int], st.dictionaries(text, st.integers(), max_size=3)),
    (dict[int, date], st.dictionaries(st.integers(-99, 99), st.dates(), max_size=3)),
    (dict[date, float], st.dictionaries(st.dates(), finite, max_size=3)),
    (dict[UUID, str], st.dictionaries(st.uuids(), text, max_size=2)),
    (
        dict[Size, list[int | None]],
        st.dictionaries(st.sampled_from(Size), st.lists(st.none() | st.integers(), max_size=2)),
    ),
    (Address, st.builds(Address, text, st.none() | st.dates())),
    (list[Point], st.lists(st.builds(Point, st.integers(), finite), max_size=2)),
    (Options, st.fixed_dictionaries({"name": text, "until": moments})),
    (Order, st.builds(Order, id=st.uuids(), lines=st.lists(st.tuples(text, exact), max_size=2))),
    (Annotated[int, Field(ge=0)], st.integers(0)),
]


@pytest.mark.parametrize(("annotation", "values"), VALUES, ids=lambda one: getattr(one, "__name__", str(one))[:40])
def test_every_value_arrives_as_what_it_was(annotation: Any, values: st.SearchStrategy[Any]) -> None:
    """Bound, written as JSON, read and loaded, a value is equal and of the same type; binding it again changes nothing."""

    def run(self: object, value: Any) -> None:
        """Take one value."""

    run.__annotations__["value"] = annotation
    arguments = arguments_of(run)

    @settings(max_examples=25)
    @given(value=values)
    def check(value: Any) -> None:
        payload = arguments.bind((value,))
        arrived = arguments.load((), over_the_wire(payload))
        assert arrived == {"value": value}
        assert type(arrived["value"]) is type(value)
        assert arguments.bind((), arrived) == payload
        assert arguments.bind((), over_the_wire(payload)) == payload  # as a chain or a redrive passes it

    check()


def test_plain_arguments_take_the_short_way_to_the_same_payload() -> None:
    """Numbers, texts, truth values and nothing are JSON as they are; what only looks so goes the long way."""

    def plain(self: Any, number: int, share: float, name: str, *, on: bool | None = None) -> None: ...

    def longer(
        self: Any, number: int, share: float, name: str, *, on: bool | None = None, other: Any = None
    ) -> None: ...

    short, long = Arguments("Plain", plain), Arguments("Longer", longer)
    assert (short._is_plain, long._is_plain) == (True, False)
    for values in ({"number": 2**70, "share": 1, "name": "é\n"}, {"number": 1, "share": -0.0, "name": "", "on": True}):
        found = short.bind((), values)
        assert [*found.items()] == [*long.bind((), values).items()][:-1]
        assert [type(value) for value in found.values()] == [type(value) for value in long.bind((), values).values()][
            :-1
        ]
    for wrong in ({"share": float("nan")}, {"name": "\ud800"}, {"number": "7"}):
        for arguments in (short, long):
            with pytest.raises(PayloadError):
                arguments.bind((), {"number": 1, "share": 1.0, "name": "n"} | wrong)


def test_a_type_that_writes_itself_takes_the_long_way() -> None:
    """Its JSON is not its value."""

    def run(self: Any, number: Annotated[int, PlainSerializer(lambda value: value + 1)]) -> None: ...

    arguments = Arguments("T", run)
    assert not arguments._is_plain
    assert arguments.bind((), {"number": 1}) == {"number": 2}
