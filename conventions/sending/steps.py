"""`chain`, `group` and `chord` with types: a checker refuses a step whose arguments, or whose predecessor's result, do not fit.

They make what Celery's functions of the same names make. Celery's have no types. A step is what `s` or `si` of a task returns:

- `CompleteStep`: all arguments are there. It may begin a chain, or stand in a group.
- `FixedStep`: the same by `si`, so that it takes no result of the step before it. It may stand anywhere.
- `StepAfter[X, R]`: the first argument is missing, which is the result of the step before it, or the list of results before a chord's body.
- `AnyStep[X, R]`: what was given fits both.

Nothing is made of these classes: what a send returns, and a step, are Celery's own objects at run time. None is derived from one of Celery's,
since where Celery has no types such a class passes for every other one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar, overload

import celery

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
X = TypeVar("X")
R_co = TypeVar("R_co", covariant=True)
X_contra = TypeVar("X_contra", contravariant=True)


class Sent(Generic[R_co]):
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

        @property
        def parent(self) -> Any:
            """What was sent before it in its chain."""

        @property
        def children(self) -> Any:
            """What its job has sent."""

        @property
        def traceback(self) -> Any:
            """Of its error."""

        def wait(self, *args: Any, **options: Any) -> R_co:
            """As `get`."""

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

        def apply_async(self, args: Any, kwargs: Any = None, **options: Any) -> Sent[R_co]:  # type: ignore[override]
            """Send it, with the argument that it lacks."""

        def delay(self, result: X_contra, /, *args: Any, **kwargs: Any) -> Sent[R_co]:
            """Send it, with the argument that it lacks."""

        @overload
        def __or__(self, other: FixedStep[B]) -> StepAfter[X_contra, B]: ...
        @overload
        def __or__(self, other: StepAfter[R_co, B]) -> StepAfter[X_contra, B]: ...
        def __or__(self, other: Any) -> Any:
            """A chain of both."""


class AnyStep(CompleteStep[R_co], StepAfter[X_contra, R_co], Generic[X_contra, R_co]):  # type: ignore[misc]
    """A step that has all its arguments, and takes the result of a step before it where there is one."""

    if TYPE_CHECKING:

        def apply_async(self, args: Any = (), kwargs: Any = None, **options: Any) -> Sent[R_co]:
            """Send it."""

        def delay(self, *args: Any, **kwargs: Any) -> Sent[R_co]:
            """Send it."""


class Chain(CompleteStep[R_co]):
    """Steps in a row; `chain(...)()` sends them."""

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **options: Any) -> Sent[R_co]:
            """Send it."""


class FixedChain(Chain[R_co], FixedStep[R_co]):
    """The same, which begins with a step by `si`, so that it may stand anywhere in another chain."""


class Group(CompleteStep[list[A]]):
    """Steps side by side; `group(...)()` sends them, and returns Celery's `GroupResult`."""

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **options: Any) -> Any:
            """Send it."""

        def apply_async(self, args: Any = (), kwargs: Any = None, **options: Any) -> Any:
            """Send it."""


class FixedGroup(Group[A], FixedStep[list[A]]):
    """The same of steps by `si`."""


class GroupAfter(StepAfter[X_contra, list[A]], Generic[X_contra, A]):
    """Steps side by side that each take the result of the step before them."""


class Header(Step[list[A]]):
    """`chord(...)` without its body, with which it is called: `chord(mails)(Total.s())`."""

    if TYPE_CHECKING:

        def __call__(self, body: FixedStep[B] | StepAfter[list[A], B], **options: Any) -> Sent[B]:
            """Send it."""


if TYPE_CHECKING:
    Next: TypeAlias = StepAfter[A, B] | FixedStep[B]  # what may stand behind a step that returns A, and returns B


@overload
def chain(first: FixedStep[A], /) -> FixedChain[A]: ...
@overload
def chain(first: FixedStep[A], second: Next[A, B], /) -> FixedChain[B]: ...
@overload
def chain(first: FixedStep[A], second: Next[A, B], third: Next[B, C], /) -> FixedChain[C]: ...
@overload
def chain(first: FixedStep[A], second: Next[A, B], third: Next[B, C], fourth: Next[C, D], /) -> FixedChain[D]: ...
@overload
def chain(
    first: FixedStep[A], second: Next[A, B], third: Next[B, C], fourth: Next[C, D], fifth: Next[D, E], /
) -> FixedChain[E]: ...
@overload
def chain(
    first: FixedStep[A],
    second: Next[A, B],
    third: Next[B, C],
    fourth: Next[C, D],
    fifth: Next[D, E],
    /,
    *more: Next[Any, Any],
) -> FixedChain[Any]: ...
@overload
def chain(first: CompleteStep[A], /) -> Chain[A]: ...
@overload
def chain(first: CompleteStep[A], second: Next[A, B], /) -> Chain[B]: ...
@overload
def chain(first: CompleteStep[A], second: Next[A, B], third: Next[B, C], /) -> Chain[C]: ...
@overload
def chain(first: CompleteStep[A], second: Next[A, B], third: Next[B, C], fourth: Next[C, D], /) -> Chain[D]: ...
@overload
def chain(
    first: CompleteStep[A], second: Next[A, B], third: Next[B, C], fourth: Next[C, D], fifth: Next[D, E], /
) -> Chain[E]: ...
@overload
def chain(
    first: CompleteStep[A],
    second: Next[A, B],
    third: Next[B, C],
    fourth: Next[C, D],
    fifth: Next[D, E],
    /,
    *more: Next[Any, Any],
) -> Chain[Any]: ...
@overload
def chain(first: StepAfter[X, A], /) -> StepAfter[X, A]: ...
@overload
def chain(first: StepAfter[X, A], second: Next[A, B], /) -> StepAfter[X, B]: ...
@overload
def chain(first: StepAfter[X, A], second: Next[A, B], third: Next[B, C], /) -> StepAfter[X, C]: ...
@overload
def chain(first: StepAfter[X, A], second: Next[A, B], third: Next[B, C], fourth: Next[C, D], /) -> StepAfter[X, D]: ...
@overload
def chain(
    first: StepAfter[X, A], second: Next[A, B], third: Next[B, C], fourth: Next[C, D], fifth: Next[D, E], /
) -> StepAfter[X, E]: ...
@overload
def chain(
    first: StepAfter[X, A],
    second: Next[A, B],
    third: Next[B, C],
    fourth: Next[C, D],
    fifth: Next[D, E],
    /,
    *more: Next[Any, Any],
) -> StepAfter[X, Any]: ...
@overload
def chain(steps: Sequence[Step[Any]], /) -> Chain[Any]: ...
def chain(*steps: Any) -> Any:
    """Steps in a row: each begins when the one before it has succeeded, and gets its result, unless `si` has made it.

    A checker compares the first five.
    """
    return celery.chain(*steps)


@overload
def group(steps: Iterable[FixedStep[A]], /) -> FixedGroup[A]: ...  # type: ignore[overload-overlap]  # the first that fits counts
@overload
def group(steps: Iterable[CompleteStep[A]], /) -> Group[A]: ...  # type: ignore[overload-overlap]  # the first that fits counts
@overload
def group(steps: Iterable[StepAfter[X, A] | FixedStep[A]], /) -> GroupAfter[X, A]: ...
@overload
def group(*steps: FixedStep[A]) -> FixedGroup[A]: ...  # type: ignore[overload-overlap]  # the first that fits counts
@overload
def group(*steps: CompleteStep[A]) -> Group[A]: ...  # type: ignore[overload-overlap]  # the first that fits counts
@overload
def group(*steps: StepAfter[X, A] | FixedStep[A]) -> GroupAfter[X, A]: ...
def group(*steps: Any) -> Any:
    """Steps side by side. In a chain, or as a chord's header, their results are a list."""
    return celery.group(*steps)


@overload
def chord(  # type: ignore[overload-overlap]  # the first that fits counts
    header: Iterable[FixedStep[A]] | FixedGroup[A], body: FixedStep[B] | StepAfter[list[A], B]
) -> FixedChain[B]: ...
@overload
def chord(header: Iterable[CompleteStep[A]] | Group[A], body: FixedStep[B] | StepAfter[list[A], B]) -> Chain[B]: ...  # type: ignore[overload-overlap]  # the first that fits counts
@overload
def chord(
    header: Iterable[StepAfter[X, A] | FixedStep[A]] | GroupAfter[X, A], body: FixedStep[B] | StepAfter[list[A], B]
) -> StepAfter[X, B]: ...
@overload
def chord(header: Iterable[CompleteStep[A]] | Group[A]) -> Header[A]: ...
def chord(header: Any, body: Any = None) -> Any:
    """Steps side by side, and one that begins when all have succeeded, with the list of their results; `chord(...)()` sends them."""
    return celery.chord(header, body)
