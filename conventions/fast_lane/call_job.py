"""How a job of a group is called: by Celery's tracer, or by the few steps of it that matter here.

Celery's tracer sends signals, calls the task's hooks, stores results and sends callbacks. A job of a group has no callbacks and
keeps no result. If nobody listens to signals and hooks, a job that succeeds needs only this: its place on the stacks of
`current_task` and `self.request`, the clock, and a log line. A job that raises always goes through Celery's tracer.
"""

import functools
import logging
import time
from typing import Any, Literal, NamedTuple

from celery import signals

from conventions.execution.attempt import Attempt
from conventions.execution.run import RUN_BY, RunBy
from conventions.execution.runnable_task import RunnableTask
from conventions.execution.success_log import JOB_SUCCEEDED, SUCCEEDED, parts_of
from conventions.fast_lane.lazy_request import LazyRequest
from conventions.fast_lane.traced_task import TracedTask
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
    """How one job ended, for the main process.

    Attributes:
        how: `done`: its outcome is recorded and its message removed. `succeeded`, `failed`: Celery's tracer says so, and the
            message must still be acknowledged or returned. `raised`: the tracer itself raised.
        value: the result as text, or the failure.
        runtime: seconds.
        has_run: whether its own code began. A duplicate, or a job whose claim was refused, has not run.
    """

    how: Literal["done", "succeeded", "failed", "raised"]
    value: Any
    runtime: float | None = None
    has_run: bool = True


def trace(task: TracedTask, id: str, args: Any, kwargs: Any, request: LazyRequest, *, observed: bool) -> Ended:  # noqa: A002
    """Run one job of a group. `observed`: the answer of `is_observed`. Raises: what Celery's tracer does not catch, such as MemoryError."""
    if observed:
        return _by_celery(task, id, args, kwargs, request.whole())
    context = request.context()
    running_tasks.push(task)
    task.request_stack.push(context)
    begun = time.monotonic()
    try:
        result = task(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  # Celery's tracer handles every error
        request.known[RUN_BY] = _raises(error, vars(context))
    else:
        runtime = time.monotonic() - begun
        shown = "None" if result is None else saferepr(result, task.resultrepr_maxsize)
        if trace_logger.isEnabledFor(logging.INFO):
            _log(task, id, request, runtime, getattr(context, "job", None))
        return Ended("succeeded", shown, runtime)
    finally:
        running_tasks.pop()
        task.request_stack.pop()
    return _by_celery(task, id, args, kwargs, request.whole())


def _raises(error: Exception, found: dict[str, Any]) -> RunBy:
    """A function that raises this error in Celery's tracer, in place of a second run.

    `found`: the attributes that `self.request` had at the end of the first one. Hooks and receivers of signals may look for what the job has set.
    """

    def run_by(task: RunnableTask, request: Any, args: Any, kwargs: Any) -> Any:  # noqa: ARG001  # of `RunBy`
        vars(request).update((name, value) for name, value in found.items() if name != RUN_BY)
        raise error

    return run_by


def is_observed(task: TracedTask) -> bool:
    """Whether somebody listens to what Celery's tracer does for a job that succeeds."""
    return any(signal.receivers for signal in _SIGNALS) or _has_hooks(task, task.__trace__)


@functools.lru_cache(maxsize=1024)
def _has_hooks(task: TracedTask, tracer: Any) -> bool:
    return (
        any(has_own(task, hook) for hook in _HOOKS)
        or type(task).__call__ is not RunningTask.__call__
        or has_own_hooks(type(task.app.loader))
        or task.track_started
        or (tracer is not None and not is_celerys_tracer(tracer))  # the tracer of an observer
    )


def _by_celery(task: TracedTask, id: str, args: Any, kwargs: Any, request: dict[str, Any]) -> Ended:  # noqa: A002
    value, failed, runtime, shown = trace_job(task, id, args, kwargs, request, app=task.app)
    return Ended("failed", value, runtime) if failed else Ended("succeeded", shown, runtime)


def _log(task: TracedTask, id: str, request: LazyRequest, runtime: float, job: Attempt | None) -> None:  # noqa: A002
    shadow = request.get("shadow")
    fields = {"id": id, "name": shadow or task.name, "runtime": runtime}
    fields |= {"args": request.get("argsrepr") or "()", "kwargs": request.get("kwargsrepr") or "{}"}
    if job is None:
        log_success(SUCCEEDED, fields)
    else:
        log_success(JOB_SUCCEEDED, fields | parts_of(job))
