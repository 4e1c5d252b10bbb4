"""`celery -A <app> explain TASK EXCEPTION`: what would happen, and when."""

import builtins
import importlib
from collections.abc import Iterator
from typing import Any

import click
from celery.bin.base import CeleryCommand

from conventions.cli.base import app_of, emit, one_line_errors
from conventions.cli.shared_options import JSON
from conventions.core import errors
from conventions.execution.runnable_task import RunnableTask


@click.command(cls=CeleryCommand)
@click.argument("task")
@click.argument("exception")
@JSON
@click.pass_context
@one_line_errors
def explain(context: click.Context, task: str, exception: str, as_json: bool) -> None:
    """Show the attempts of TASK if each ends with EXCEPTION, such as ConnectionRefusedError or httpx.ReadTimeout."""
    app = app_of(context)
    app.loader.import_default_modules()
    found = [one for name, one in app.tasks.items() if task in (name, name.rpartition(".")[2])]
    names = sorted({one.name for one in found})
    if len(names) > 1:
        raise click.UsageError(f"several tasks are called {task}; write one of {', '.join(names)}")
    if not found or not hasattr(found[0], "retry_policy"):
        raise click.UsageError(f"there is no task {task}; `celery -A {app.main} inspect registered` lists them")
    emit(_attempts(found[0], _exception(exception)), ("attempt", "after_s", "from_s", "to_s", "then"), as_json=as_json)


def _attempts(task: RunnableTask, error: BaseException) -> Iterator[dict[str, Any]]:
    policy, waited = task.retry_policy, 0.0
    kind = policy.kind_of(error)
    for attempt in range(1, policy.limit_for(kind) + 1):
        overruled = task.should_retry(error, attempt) if task.overrules_retry else None  # type: ignore[arg-type]  # of any class
        decision = policy.decide(error, {kind: attempt}, overruled=overruled, chance=0.5)
        row: dict[str, Any] = {"attempt": attempt, "after_s": round(waited, 1), "from_s": None, "to_s": None}
        if decision.wait is None:
            yield row | {"then": f"dead letter: {decision.reason}"}
            return
        waited += decision.wait
        earliest, latest = (round(policy.wait_after(attempt, chance), 1) for chance in (0, 1))
        yield row | {"from_s": earliest, "to_s": latest, "then": f"{kind} error: tried again"}


def _exception(name: str) -> BaseException:
    module_name, _, attribute = name.rpartition(".")
    try:
        place = importlib.import_module(module_name) if module_name else builtins
        cls = getattr(place, attribute, None) or getattr(errors, attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise click.UsageError(f"there is no exception {name}; write module.Class") from error
    if not (isinstance(cls, type) and issubclass(cls, BaseException)):
        raise click.UsageError(f"{name} is not an exception")
    return cls.__new__(cls)  # a policy does not look at its arguments
