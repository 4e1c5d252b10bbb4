"""`@app.job`: makes the same task of a typed function as a class with its `run` would be."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from conventions.core.errors import DeclarationError
from conventions.declare.class_rules import refuse_no_plain_function
from conventions.tasks.base_classes import ConventionTask
from conventions.tasks.job_classes import ImmediateTask
from conventions.tasks.owners import MADE_BY

P = ParamSpec("P")
R = TypeVar("R")

if TYPE_CHECKING:

    class FunctionJob(ConventionTask, Generic[P, R]):
        """What `@app.job` returns, for type checkers: it is called as the function, and sent as a task class."""

        @property
        def run(self) -> Callable[P, R]:
            """The function."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Call the function here."""


def job_class(
    app: Any,
    function: Callable[..., Any],
    *,
    queue: str | None = None,
    name: str | None = None,
    bind: bool = False,
    base: type[ConventionTask] = ImmediateTask,
    **attributes: Any,
) -> type[ConventionTask]:
    """Declare the class whose `run` is this function.

    Args:
        app: an application of ours, to which it belongs.
        function: typed, with a docstring, as `run` is.
        queue: `queue_name` of the class.
        name: of the task; default: its module and its name, as in Celery.
        bind: whether its first parameter is the task itself, `self`.
        base: the class that it is derived from.
        attributes: of the class, such as `idempotent_on`.

    Raises:
        DeclarationError: what a class would be refused for.
    """
    if not inspect.isfunction(function):
        raise DeclarationError(f"@app.job is for a function, written with def, and not for {function!r}")
    place = f"{function.__module__}.{function.__qualname__}"
    if (
        not (isinstance(base, type) and issubclass(base, ConventionTask))
        or base.registered is not None
        or _is_batch(base)
    ):
        raise DeclarationError(
            f"{place}: base is ImmediateTask, ScheduledTask, LongRunningTask, or an abstract class derived from one, not {base!r}"
        )
    refuse_no_plain_function(place, function)
    if bind and not inspect.signature(function).parameters:
        raise DeclarationError(
            f"{place}: with bind=True its first parameter is the task: write def {function.__name__}(self, ...)"
        )
    if queue is not None and "queue_name" in attributes:
        raise DeclarationError(f"{place}: queue and queue_name are the same; write one")
    if queue is not None:
        attributes["queue_name"] = queue
    own = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "__firstlineno__": inspect.unwrap(function).__code__.co_firstlineno,
        MADE_BY: app,
        "name": name or app.gen_task_name(function.__name__, function.__module__),
        "run": function if bind else _with_self(function),
    }
    if taken := sorted(own.keys() & attributes.keys()):
        raise DeclarationError(f"{place}: @app.job takes no {taken[0]}")
    make: Any = type(base)  # its metaclass
    made: type[ConventionTask] = make(function.__name__, (base,), own | attributes)
    return made


def _is_batch(base: type[ConventionTask]) -> bool:
    return hasattr(base, "process")


def _with_self(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, as a method: Celery calls `run` with the task."""

    @functools.wraps(function)
    def run(_task: Any, /, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    signature = inspect.signature(function)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = list(signature.parameters.values())
    if any(one.name == "self" for one in parameters):
        raise DeclarationError(
            f"{function.__module__}.{function.__qualname__}: it takes self: write @app.job(bind=True)"
        )
    run.__signature__ = signature.replace(parameters=[itself, *parameters])  # type: ignore[attr-defined]  # a function has one
    return run
