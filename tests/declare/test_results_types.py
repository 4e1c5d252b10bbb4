"""What a job returns is made JSON by its annotation; what JSON cannot hold is refused when the module is imported."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict  # pydantic wants this one on Python 3.11

from conventions import BatchTask, ImmediateTask
from conventions.core.canonical_json import encode
from conventions.core.errors import DeclarationError
from conventions.declare.arguments_as_json import Returned

if TYPE_CHECKING:
    from fractions import Fraction


class Model(BaseModel):
    """A model."""

    day: date
    price: Decimal


@dataclass
class Pair:
    """A dataclass."""

    one: int
    day: date


class Row(TypedDict):
    """JSON already."""

    name: str
    tags: list[str]


class Plain:
    """Something that nobody knows how to write."""


MOMENT = datetime(2026, 1, 2, 3, tzinfo=UTC)
DAY = date(2026, 1, 2)
RESULTS: list[tuple[Any, Any, Any]] = [
    (date, DAY, "2026-01-02"),
    (datetime, MOMENT, "2026-01-02T03:00:00Z"),
    (Decimal, Decimal("1.50"), "1.50"),
    (UUID | None, UUID(int=1), str(UUID(int=1))),
    (Model, Model(day=DAY, price=Decimal("1.5")), {"day": "2026-01-02", "price": "1.5"}),
    (list[Model], [Model(day=DAY, price=Decimal(2))], [{"day": "2026-01-02", "price": "2"}]),
    (Pair, Pair(1, DAY), {"one": 1, "day": "2026-01-02"}),
    (dict[str, date], {"a": DAY}, {"a": "2026-01-02"}),
    (tuple[int, date], (1, DAY), [1, "2026-01-02"]),
    (date, "2026-01-02", "2026-01-02"),  # what it returns is not what it says
    (date, MOMENT, "2026-01-02T03:00:00Z"),
    (Row, {"name": "a", "tags": []}, {"name": "a", "tags": []}),
    (dict[str, Any] | None, {"a": 1}, {"a": 1}),
    (Any, {"a": 1}, {"a": 1}),
    (None, None, None),
    (NoReturn, None, None),
]


def returning(hint: Any) -> Callable[..., Any]:
    """A `run` with this annotation."""

    def run(self: Any) -> Any:
        """Return nothing."""

    run.__annotations__["return"] = hint
    return run


@pytest.mark.parametrize(("hint", "result", "written"), RESULTS, ids=range(len(RESULTS)))
def test_a_result_by_its_annotation(hint: Any, result: Any, written: Any) -> None:
    """In the form in which an argument of that type would be sent."""
    found = Returned("Task", returning(hint)).json(result)
    assert found == written
    assert encode(found)


@pytest.mark.parametrize("hint", [Plain, list[Plain], bytes, Callable[[], int], dict[str, bytes]])
def test_what_json_cannot_hold_is_refused(hint: Any) -> None:
    """When the class is made, with what to write: not after the effect."""
    with pytest.raises(DeclarationError, match=r"Refused: it returns .*return an id, JSON values"):
        type(
            "Refused",
            (ImmediateTask,),
            {
                "__doc__": "Refused.",
                "__module__": __name__,
                "__qualname__": "Refused",
                "not_idempotent": "a test",
                "run": returning(hint),
            },
        )


def test_types_that_only_a_checker_knows() -> None:
    """Of an argument of `process` nobody asks for the type; of a result the error names the task."""

    def process(self: Any, chunk: "list[Fraction]") -> date:
        return DAY

    def finish(self: Any) -> "Fraction":
        raise NotImplementedError

    assert Returned("Batch", process).json(DAY) == "2026-01-02"
    with pytest.raises(DeclarationError, match="Batch: the type that it returns is not defined: name 'Fraction'"):
        Returned("Batch", finish)


def test_the_parts_of_a_batch_are_looked_at() -> None:
    """What `process` returns is a result, too."""
    with pytest.raises(DeclarationError, match="it returns Plain"):

        class Parts(BatchTask):
            """A batch."""

            idempotent_on = ("n",)

            def items(self, n: int) -> Iterator[int]:
                """Numbers."""
                yield from range(n)

            def process(self, chunk: list[int], n: int) -> Plain:  # noqa: ARG002
                """Return what cannot be kept."""
                return Plain()
