"""`chain`, `group` and `chord` with types: a checker refuses a step whose arguments, or whose predecessor's result, do not fit.

They make what Celery's functions of the same names make. Celery's have no types. A step is what `s` or `si` of a task returns:

- `CompleteStep`: all arguments are there. It may begin a chain, or stand in a group.
- `FixedStep`: the same by `si`, so that it takes no result of the step before it. It may stand anywhere.
- `StepAfter[X, R]`: the first argument is missing, which is the result of the step before it, or the list of results before a chord's body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

import celery

if TYPE_CHECKING:
    from celery.result import AsyncResult
else:

    class AsyncResult:
        """Nothing is made of these classes: what a send returns, and a step, are Celery's own."""


A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R_co = TypeVar("R_co", covariant=True)
X_contra = TypeVar("X_contra", contravariant=True)


class Sent(AsyncResult, Generic[R_co]):
    """What a send returns, for type checkers: Celery's `AsyncResult`.

    Attributes:
        id: of the message; `Job.of(id)` says what becomes of it.
    """

    id: str

    if TYPE_CHECKING:

        @property
        def state(self) -> str:
            """Celery's word for its state."""

        @property
        def status(self) -> str:
            """The same."""

        @property
        def result(self) -> Any:
            """The result, or the error, once it has ended."""

        def ready(self) -> bool:
            """Whether it has ended."""

        def successful(self) -> bool:
            """Whether it has succeeded."""

        def failed(self) -> bool:
            """Whether it is dead."""

        def revoke(self, *args: Any, **options: Any) -> None:
            """Keep it from running."""

        def forget(self) -> None:
            """Delete what is kept of its result."""

        def get(  # noqa: PLR0917  # Celery's
            self,
            timeout: float | None = None,
            propagate: bool = True,
            interval: float = 0.5,
            no_ack: bool = True,
            follow_parents: bool = True,
            callback: Callable[..., Any] | None = None,
            on_message: Callable[..., Any] | None = None,
            on_interval: Callable[[], Any] | None = None,
            disable_sync_subtasks: bool = True,
        ) -> R_co:
            """Wait for the result, also if it is not kept: see `Job.of`. Raises: its error; `celery.exceptions.TimeoutError`."""


class Step(Mapping[str, Any], Generic[R_co]):
    """A task with arguments, for type checkers: Celery's `Signature`.

    It is not derived from that: where Celery has no types, a class that is derived from one of its own passes for every other one.

    Attributes:
        task: the name of its task.
        args: positional arguments.
        kwargs: arguments by name.
        options: of its send.
        id: of its message, once it is fixed.
    """

    id: Any
    task: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Run it here, with further arguments before its own."""

        def clone(self, args: Any = None, kwargs: Any = None, **options: Any) -> Self:
            """A copy, with further arguments and options."""

        def link(self, callback: Any) -> Any:
            """Send a step after it, with its result."""

        def link_error(self, errback: Any) -> Any:
            """Send a step if it is dead."""

        def on_error(self, errback: Any) -> Self:
            """The same; returns this step."""

        def apply_async(self, args: Any = (), kwargs: Any = None, **options: Any) -> Sent[R_co]:
            """Send it."""

        def delay(self, *args: Any, **kwargs: Any) -> Sent[R_co]:
            """Send it."""

        def set(self, immutable: bool | None = None, **options: Any) -> Self:
            """Set options of its send."""


class CompleteStep(Step[R_co]):
    """A step with all its arguments."""

    if TYPE_CHECKING:

        @overload
        def __or__(self, other: FixedStep[B]) -> Chain[B]: ...
        @overload
        def __or__(self, other: StepAfter[R_co, B]) -> Chain[B]: ...
        def __or__(self, other: Any) -> Any:
            """A chain of both."""


class FixedStep(CompleteStep[R_co]):
    """A step with all its arguments that takes no result of another one."""


class StepAfter(Step[R_co], Generic[X_contra, R_co]):
    """A step whose first argument is the result of the step before it."""

    if TYPE_CHECKING:

        def _takes(self, result: X_contra, /) -> R_co: ...


class Chain(CompleteStep[R_co]):
    """Steps in a row; `chain(...)()` sends them."""

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **options: Any) -> Sent[R_co]:
            """Send it."""


class Group(CompleteStep[list[A]]):
    """Steps side by side; `group(...)()` sends them, and returns Celery's `GroupResult`."""

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **options: Any) -> Any:
            """Send it."""

        def apply_async(self, args: Any = (), kwargs: Any = None, **options: Any) -> Any:
            """Send it."""


@overload
def chain(first: CompleteStep[A], /) -> Chain[A]: ...
@overload
def chain(first: CompleteStep[A], second: FixedStep[B] | StepAfter[A, B], /) -> Chain[B]: ...
@overload
def chain(
    first: CompleteStep[A], second: FixedStep[B] | StepAfter[A, B], third: FixedStep[C] | StepAfter[B, C], /
) -> Chain[C]: ...
@overload
def chain(
    first: CompleteStep[A],
    second: FixedStep[B] | StepAfter[A, B],
    third: FixedStep[C] | StepAfter[B, C],
    fourth: FixedStep[D] | StepAfter[C, D],
    /,
) -> Chain[D]: ...
@overload
def chain(
    first: CompleteStep[A],
    second: FixedStep[B] | StepAfter[A, B],
    third: FixedStep[C] | StepAfter[B, C],
    fourth: FixedStep[D] | StepAfter[C, D],
    fifth: FixedStep[E] | StepAfter[D, E],
    /,
    *more: Step[Any],
) -> Chain[Any]: ...
def chain(*steps: Any) -> Any:
    """Steps in a row: each begins when the one before it has succeeded, and gets its result, unless `si` has made it.

    A checker compares the first five.
    """
    return celery.chain(*steps)


def group(steps: Iterable[CompleteStep[A]], /) -> Group[A]:
    """Steps side by side. In a chain, or as a chord's header, their results are a list."""
    made: Group[A] = celery.group(steps)
    return made


def chord(header: Iterable[CompleteStep[A]], body: FixedStep[B] | StepAfter[list[A], B], /) -> Chain[B]:
    """Steps side by side, and one that begins when all have succeeded, with the list of their results; `chord(...)()` sends them."""
    made: Chain[B] = celery.chord(header, body)
    return made
