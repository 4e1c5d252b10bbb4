"""How a job of a group is traced: by Celery's tracer, or where nobody would see the difference, by the part of it that counts.

Celery's tracer sends signals, calls the task's hooks, stores results and sends what follows. A job of a group has nothing
that follows it and keeps no result. Where nobody listens, what is left for one that succeeds is its place on the stacks of
`current_task` and `self.request`, the clock, and a line in the log. One that raises goes through Celery's tracer, always.
"""

import functools
import logging
import time
from typing import Any, Literal, NamedTuple

from celery import signals

from conventions.execution.attempt import Job
from conventions.execution.log_redaction import SUCCEEDED
from conventions.execution.run import RUN_BY, RunBy
from conventions.fast_lane.lazy_request import LazyRequest
from conventions.library_internals.celery import (
    has_own,
    has_own_hooks,
    is_celerys_tracer,
    log_success,
    running_tasks,
    saferepr,
    trace_job,
    trace_logger,
)
from conventions.tasks.running_task import RunningTask

_SIGNALS = (signals.task_prerun, signals.task_postrun, signals.task_success)
_HOOKS = ("before_start", "on_success", "after_return")


class Ended(NamedTuple):
    """How one ended, for the main process.

    Attributes:
        how: `done`: the message is gone, its outcome recorded; `succeeded` and `failed`: as Celery's tracer says, and the
            message is still to be acknowledged or returned; `raised`: not even the tracer could say.
        value: the result as text, or the failure.
        runtime: seconds.
    """

    how: Literal["done", "succeeded", "failed", "raised"]
    value: Any
    runtime: float | None = None


def trace(task: Any, id: str, args: Any, kwargs: Any, request: LazyRequest, *, observed: bool) -> Ended:  # noqa: A002
    """Run one job of a group; `observed`: as `is_observed` says. Raises: what Celery's tracer lets through, as MemoryError."""
    if observed:
        return _by_celery(task, id, args, kwargs, request.whole())
    context = request.context()
    running_tasks.push(task)
    task.request_stack.push(context)
    begun = time.monotonic()
    try:
        result = task(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  # whatever it is, Celery tells everybody
        request.known[RUN_BY] = _raises(error, getattr(context, "job", None))
    else:
        runtime = time.monotonic() - begun
        shown = "None" if result is None else saferepr(result, task.resultrepr_maxsize)
        if trace_logger.isEnabledFor(logging.INFO):
            _log(task, id, request, runtime)
        return Ended("succeeded", shown, runtime)
    finally:
        running_tasks.pop()
        task.request_stack.pop()
    return _by_celery(task, id, args, kwargs, request.whole())


def _raises(error: Exception, job: Job | None) -> RunBy:
    """The job has run: Celery's tracer is told how it ended."""

    def run_by(task: Any, request: Any, args: Any, kwargs: Any) -> Any:  # noqa: ARG001  # of `RunBy`
        request.job = job
        raise error

    return run_by


def is_observed(task: Any) -> bool:
    """Whether somebody would miss what Celery's tracer does for a job that succeeds."""
    return any(signal.receivers for signal in _SIGNALS) or _has_hooks(task, task.__trace__)


@functools.lru_cache(maxsize=1024)
def _has_hooks(task: Any, tracer: Any) -> bool:
    return (
        any(has_own(task, hook) for hook in _HOOKS)
        or type(task).__call__ is not RunningTask.__call__
        or has_own_hooks(type(task.app.loader))
        or task.track_started
        or (tracer is not None and not is_celerys_tracer(tracer))  # of an observer
    )


def _by_celery(task: Any, id: str, args: Any, kwargs: Any, request: dict[str, Any]) -> Ended:  # noqa: A002
    value, failed, runtime, shown = trace_job(task, id, args, kwargs, request, app=task.app)
    return Ended("failed", value, runtime) if failed else Ended("succeeded", shown, runtime)


def _log(task: Any, id: str, request: LazyRequest, runtime: float) -> None:  # noqa: A002
    shadow = request.get("shadow")
    told = {"id": id, "name": shadow or task.name, "runtime": runtime}
    log_success(
        SUCCEEDED, told | {"args": request.get("argsrepr") or "()", "kwargs": request.get("kwargsrepr") or "{}"}
    )
