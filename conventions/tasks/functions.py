"""What `@app.task` and `@shared_task` make of a function in an application of ours: Celery's task, or a job.

Celery registers a function of another application here, too. It stays what it is.

A function keeps Celery's meaning until it is moved. `create_app(functions="conventions")` makes a job of each in the application's packages.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, get_args

from conventions.core.errors import DeclarationError
from conventions.library_internals.celery import functions_of_applications
from conventions.tasks.base_classes import ConventionTask
from conventions.tasks.job_decorator import job_class
from conventions.tasks.plain_task import is_celerys

Functions: TypeAlias = Literal["celery", "conventions"]

KINDS: tuple[str, ...] = get_args(Functions)
OURS = (
    "aliases",
    "chunk_size",
    "encrypt",
    "fast_lane",
    "idempotent_on",
    "not_idempotent",
    "queue_name",
    "requires",
    "retry_policy",
    "searchable",
    "sensitive",
    "stall_after",
)
OF_THE_DECORATOR = ("base", "filter", "lazy", "shared")  # options that Celery's decorator takes for itself
UNSAID = "it was declared as a function of Celery, which says nothing of running twice"


def check_kind(functions: str) -> None:
    """Check what `create_app` is told. Raises: ValueError."""
    if functions not in KINDS:
        raise ValueError(f"create_app: functions is {' or '.join(map(repr, KINDS))}, not {functions!r}")


def refuse_ours(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that have no effect on a function. Raises: DeclarationError."""
    if found := [one for one in OURS if one in options]:
        raise DeclarationError(
            f"{name}: {found[0]} has no effect on a function, which keeps Celery's meaning: write @app.job(...) in place of @app.task, or leave it out"
        )


def is_of_another(app: Any, function: Callable[..., Any]) -> bool:
    """Whether another application has declared a function."""
    found = inspect.unwrap(function)
    return found in functions_of_applications() and found not in app.declared_functions


def job_of_celerys(app: Any, function: Callable[..., Any], options: Mapping[str, Any]) -> type[ConventionTask]:
    """Make a job of a function that somebody has written for Celery. Raises: DeclarationError, with what to write."""
    attributes = {name: value for name, value in options.items() if name not in OF_THE_DECORATOR}
    if "idempotent_on" not in options:
        attributes.setdefault("not_idempotent", UNSAID)
    return job_class(app, function, **attributes)


def functions_of(app: Any) -> list[str]:
    """The names of the tasks that keep Celery's meaning, without Celery's own, and without functions of other applications."""
    return sorted(
        name
        for name, task in app.tasks.items()
        if name == task.name
        and not isinstance(task, ConventionTask)
        and not is_celerys(task)
        and not is_of_another(app, getattr(task.run, "__func__", task.run))
    )
