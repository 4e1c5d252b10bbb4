"""What a type checker knows of the sends of a task: their arguments are those of its `run`, and of a batch those of its `items`.

Each class here stands for a method. A checker calls its `__get__`, as Python does with a property, and finds the signature of `run` in the
class by which the method was reached. So `SendEmail.delay(user_id="x")` is an error before anything runs. At run time they are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from conventions.core.priority import Priority
from conventions.sending.steps import AnyStep, CompleteStep, FixedStep, Sent, StepAfter

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F")
F_co = TypeVar("F_co", covariant=True)
X = TypeVar("X")
X_contra = TypeVar("X_contra", contravariant=True)
Y = TypeVar("Y")
Y_contra = TypeVar("Y_contra", contravariant=True)


class HasRun(Protocol[P, R_co]):
    """A task, or a job of a function."""

    @property
    def run(self) -> Callable[P, R_co]:
        """What it does."""


class HasRunAs(Protocol[F_co]):
    """The same; its signature is known as one type, which `StepMaker` takes apart."""

    @property
    def run(self) -> F_co:
        """What it does."""


class Delay:
    """`delay` and `delay_on_commit`: take the arguments of `run`."""

    def __get__(self, task: object, cls: type[HasRun[P, R]]) -> Callable[P, Sent[R]]:
        """What a checker sees."""
        raise NotImplementedError


AnySession: TypeAlias = "Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any]"


class EnqueuerIn(Protocol[P, R_co]):
    """`enqueue_in` itself."""

    def __call__(self, session: AnySession, /, *args: P.args, **kwargs: P.kwargs) -> Sent[R_co]:
        """Send one message when the session's transaction has committed."""


class EnqueueIn:
    """`enqueue_in`: takes a session, and the arguments of `run`."""

    def __get__(self, task: object, cls: type[HasRun[P, R]]) -> EnqueuerIn[P, R]:
        """What a checker sees."""
        raise NotImplementedError


class Si:
    """`si`: takes the arguments of `run`."""

    def __get__(self, task: object, cls: type[HasRun[P, R]]) -> Callable[P, FixedStep[R]]:
        """What a checker sees."""
        raise NotImplementedError


class S:
    """`s`: takes the arguments of `run`, or all but the first, which the step before it gives."""

    def __get__(self, task: object, cls: type[HasRunAs[F]]) -> StepMaker[F]:
        """What a checker sees."""
        raise NotImplementedError


class WithOrWithout(Protocol[X_contra, R_co]):
    """A function whose arguments may all be left out, or the first be given."""

    @overload
    def __call__(self) -> R_co: ...
    @overload
    def __call__(self, first: X_contra, /) -> R_co: ...


class WithOrWithout1(Protocol[X_contra, Y_contra, R_co]):
    """A function that takes one argument, or one before it."""

    @overload
    def __call__(self, one: Y_contra, /) -> R_co: ...
    @overload
    def __call__(self, first: X_contra, one: Y_contra, /) -> R_co: ...


class StepMaker(Generic[F_co]):
    """`s` itself."""

    @overload
    def __call__(self: StepMaker[WithOrWithout[X, R]]) -> AnyStep[X, R]: ...
    @overload
    def __call__(self: StepMaker[WithOrWithout1[X, Y, R]], one: Y, /) -> AnyStep[X, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self: StepMaker[Callable[P, R]], *args: P.args, **kwargs: P.kwargs
    ) -> CompleteStep[R]: ...
    @overload
    def __call__(
        self: StepMaker[Callable[Concatenate[X, Q], R]], *args: Q.args, **kwargs: Q.kwargs
    ) -> StepAfter[X, R]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make a step."""
        raise NotImplementedError


class SendOption(TypedDict, total=False):
    """The options of a send: those of `apply_async`, and `using` for sends on commit in Django."""

    actor: str
    argsrepr: str
    countdown: float
    eta: datetime | str
    expires: float | datetime | str
    headers: Mapping[str, Any]
    idempotency_key: str
    ignore_result: bool
    kwargsrepr: str
    link: Any
    link_error: Any
    parent_id: str
    planned_at: datetime | str | None
    priority: Priority
    queue: str
    retry: bool
    root_id: str
    routing_key: str
    shadow: str
    soft_time_limit: float
    task_id: str
    time_limit: float
    using: str


class SendsWithOptions(Protocol[P, R_co]):
    """What `options` returns; see `outbox/sends_on_commit.py`."""

    def options(self, /, **options: Unpack[SendOption]) -> SendsWithOptions[P, R_co]:
        """The same with further options."""

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Sent[R_co]:
        """Send one message now."""

    def delay(self, /, *args: P.args, **kwargs: P.kwargs) -> Sent[R_co]:
        """Send one message now."""

    def enqueue_many(self, /, arguments: Iterable[Mapping[str, Any]]) -> list[str]:
        """Send many messages now."""

    def enqueue_in(self, session: Any, /, *args: P.args, **kwargs: P.kwargs) -> Sent[R_co]:
        """Send one message when the session's transaction has committed."""

    def enqueue_many_in(self, session: Any, /, arguments: Iterable[Mapping[str, Any]]) -> list[str]:
        """Send many messages when the session's transaction has committed."""

    def delay_on_commit(self, /, *args: P.args, **kwargs: P.kwargs) -> Sent[R_co]:
        """Send one message when Django's transaction has committed."""

    def delay_many_on_commit(self, /, arguments: Iterable[Mapping[str, Any]]) -> list[str]:
        """Send many messages when Django's transaction has committed."""


class OptionsMaker(Protocol[P, R_co]):
    """`options` itself."""

    def __call__(self, **options: Unpack[SendOption]) -> SendsWithOptions[P, R_co]:
        """Make the sends."""


class Options:
    """`options`: what it returns sends with the arguments of `run`."""

    def __get__(self, task: object, cls: type[HasRun[P, R]]) -> OptionsMaker[P, R]:
        """What a checker sees."""
        raise NotImplementedError


# The same of a batch: its arguments are those of `items`. It returns nothing: `finish` has its end.


class HasItems(Protocol[P]):
    """A batch."""

    @property
    def items(self) -> Callable[P, Iterable[Any]]:
        """What it is cut from."""


class DelayBatch:
    """`delay` and `delay_on_commit` of a batch."""

    def __get__(self, task: object, cls: type[HasItems[P]]) -> Callable[P, Sent[Any]]:
        """What a checker sees."""
        raise NotImplementedError


class EnqueueBatchIn:
    """`enqueue_in` of a batch."""

    def __get__(self, task: object, cls: type[HasItems[P]]) -> Callable[Concatenate[Any, P], Sent[Any]]:
        """What a checker sees."""
        raise NotImplementedError


class HasItemsAs(Protocol[F_co]):
    """A batch; the signature of its `items` is known as one type."""

    @property
    def items(self) -> F_co:
        """What it is cut from."""


class BatchS:
    """`s` of a batch."""

    def __get__(self, task: object, cls: type[HasItemsAs[F]]) -> BatchStepMaker[F]:
        """What a checker sees."""
        raise NotImplementedError


class BatchStepMaker(Generic[F_co]):
    """`s` of a batch itself."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self: BatchStepMaker[Callable[P, Iterable[Any]]], *args: P.args, **kwargs: P.kwargs
    ) -> CompleteStep[Any]: ...
    @overload
    def __call__(
        self: BatchStepMaker[Callable[Concatenate[X, Q], Iterable[Any]]], *args: Q.args, **kwargs: Q.kwargs
    ) -> StepAfter[X, Any]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make a step."""
        raise NotImplementedError


class BatchStep:
    """`si` of a batch: all arguments are there."""

    def __get__(self, task: object, cls: type[HasItems[P]]) -> Callable[P, FixedStep[Any]]:
        """What a checker sees."""
        raise NotImplementedError


class BatchOptions:
    """`options` of a batch."""

    def __get__(self, task: object, cls: type[HasItems[P]]) -> OptionsMaker[P, Any]:
        """What a checker sees."""
        raise NotImplementedError
