"""How a worker runs messages: begin, run, settle.

Celery acknowledges a message after `execute` has returned or raised, so nothing is acknowledged before its outcome is
recorded.
"""

import functools
import logging
import os
import random
from collections.abc import Callable
from typing import Any, Protocol

from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded

from conventions.core.actor import resuming
from conventions.core.error_text import text_of
from conventions.core.errors import (
    CannotOpen,
    JobCancelled,
    JobExited,
    JobRejected,
    PayloadError,
)
from conventions.core.forks import end_if_forked
from conventions.declare.arguments_as_json import encode_result
from conventions.execution.attempt import Attempt
from conventions.execution.attempt_event import sealed_body
from conventions.execution.begin import ENDINGS, Begun, begin
from conventions.execution.failed_attempt import end_failed
from conventions.execution.follow_ups import send_follow_ups
from conventions.execution.permission_check import check_permission
from conventions.execution.process_state import end_own_code, held
from conventions.execution.retry_message import end_waiting
from conventions.execution.runnable_task import RunnableTask
from conventions.execution.sealed_outcomes import hidden, log_sealer, opened_result, sealed_result, told_result
from conventions.execution.settle import (
    AT_ONCE,
    Outcomes,
    end_cancelled,
    end_dead,
    end_released,
)
from conventions.execution.soft_time_limit import soft_limit
from conventions.execution.traced_run import run_traced
from conventions.idempotency.claim_answers import Done
from conventions.idempotency.claims import (
    EffectExists,
    TransactionBusy,
)
from conventions.idempotency.shared_memory import Page
from conventions.library_internals.billiard import ends_process
from conventions.progress.overlong_jobs import watching

logger = logging.getLogger(__name__)


LONGEST_CHAIN = 100  # causes of an error whose texts are read; a chain may go in a circle
RUN_BY = "conventions_run_by"  # name of what runs a request in place of `execute`, among its attributes


class TurnOver(Exception):
    """The job goes on in another turn: its message comes again, and others run meanwhile."""


class RetryAsked(Retry):
    """`self.retry()` was called: the policy decides, as for any other error."""

    def __init__(self, error: Exception, countdown: float | None) -> None:
        super().__init__(exc=error)
        self.error = error
        self.countdown = countdown


class RunBy(Protocol):
    """Runs a request in place of `execute`: an attribute `RUN_BY` of the request, in the process that runs it."""

    def __call__(self, task: RunnableTask, request: Any, args: Any, kwargs: Any) -> Any:
        """Returns its result."""


def execute(
    task: RunnableTask,
    request: Any,
    args: Any,
    kwargs: Any,
    *,
    begins: Callable[[RunnableTask, Any, Any, Any], Begun] = begin,
    outcomes: Outcomes = AT_ONCE,
) -> Any:
    """Run the task's current request and return its result, or what the first run of its key returned.

    Args:
        task: the running task.
        request: its current one.
        args: positional arguments of the message.
        kwargs: its arguments by name.
        begins: as `begin`.
        outcomes: where a success is recorded.
    """
    ends: BaseException | None = None
    try:
        job, values, found = begins(task, request, args, kwargs)
    except BaseException as error:
        end_own_code(task, request)
        is_sealed = sealed_body(request) is not None and isinstance(error, Exception)
        if not is_sealed and (request.is_eager or isinstance(error, ENDINGS) or not isinstance(error, Exception)):
            raise
        ends = (
            error if isinstance(error, ENDINGS) else Reject(error, requeue=True)
        )  # nothing was begun, so nothing has failed
        if not is_sealed:
            raise ends from error
        ends = hidden(task.name, ends)
    if ends is not None:
        raise ends  # out here the error behind it is no context of it, which reporters of errors read
    tracing = task.app.tracing
    if tracing is None:
        result = _carry_out(task, request, job, values, found=found, outcomes=outcomes)
    else:
        run = functools.partial(_carry_out, task, request, job, values, found=found, outcomes=outcomes)
        result = run_traced(tracing, job, run, outcome="succeeded" if found is None else "duplicate")
    return told_result(task, job, result) if job.sealed else result


def _carry_out(
    task: RunnableTask,
    request: Any,
    job: Attempt,
    values: dict[str, Any],
    *,
    found: Done | None,
    outcomes: Outcomes,
) -> Any:
    """Run what has begun, record how it ended, send what follows. Returns its result, or raises what Celery is told."""
    if found is not None:
        job.ended = True
        return _followed(task, request, found.result, outcomes)
    ends: BaseException | None = None
    try:
        result = _run(task, request, job, values)
    except EffectExists as found_effect:
        logger.info("duplicate: id=%s task=%s: the effect was committed before", job.id, job.task)
        result = _effect(task, job, found_effect.result)
    except BaseException as error:
        ending = _ending(task, job, error)
        if not job.sealed:
            if ending is error:
                raise
            raise ending from error
        ends = hidden(job.task, ending)
    if ends is not None:
        raise ends  # here the error behind it is no context of it
    return _followed(task, request, _finish(task, request, job, result, outcomes), outcomes)


def _followed(task: RunnableTask, request: Any, result: Any, outcomes: Outcomes) -> Any:
    if outcomes.may_be_followed and not request.is_eager and (request.callbacks or request.chain):
        send_follow_ups(task, request, result)
    return result


def _effect(task: RunnableTask, job: Attempt, result: Any) -> Any:
    """The result that was committed with an effect. Raises: what ends the job, where that cannot be opened here."""
    try:
        return opened_result(task, job, result)
    except CannotOpen as error:
        raise end_dead(task, job, error) from None


def _ending(task: RunnableTask, job: Attempt, error: BaseException) -> BaseException:
    """Record how a run that raised has ended. Returns what to raise."""
    match error:
        case TransactionBusy():
            logger.info("waits: id=%s task=%s: another transaction is recording its key", job.id, job.task)
            ending: BaseException = end_waiting(task, job, random.uniform(1, 2))
        case TurnOver():
            ending = end_waiting(task, job, 0.0, "continued")
        case RetryAsked():
            ending = end_failed(task, job, error.error, error.countdown)
        case Reject():
            ending = _rejected(task, job, error)
        case Ignore():  # also of `self.replace`: another message goes on under this id
            ending = end_released(task, job, "superseded", error)
        case JobCancelled():
            logger.info("cancelled: id=%s task=%s: while it ran", job.id, job.task)
            ending = end_cancelled(task, job, claimed=True)
        case SystemExit() if ends_process(error):
            ending = error
        case SystemExit():  # of a library: it must neither end the worker nor lose the job
            ending = end_failed(task, job, _exited(error, f"the job called exit({error.code!r})"))
        case Exception():
            ending = end_failed(task, job, error)
        case _:  # such as asyncio.CancelledError, which Celery does not take for a failure
            ending = end_failed(task, job, _exited(error, f"the job raised {type(error).__name__}: {text_of(error)}"))
    return ending


def _exited(cause: BaseException, text: str) -> JobExited:
    exited = JobExited(text).with_traceback(cause.__traceback__)
    exited.__cause__ = cause
    return exited


def _run(task: RunnableTask, request: Any, job: Attempt, values: dict[str, Any]) -> Any:
    if request.is_eager:
        check_permission(task, job)
        with resuming(job.actor, job.edited_by):
            return task.run(**values)
    page = task.app.pages.mine
    job.reports = job.reports or getattr(request, "reporter", None) is not None  # somebody asked before the job began
    logs = task.app.attempt_logs
    seals = log_sealer(task, job) if job.sealed else None
    log = job.log = None if logs is None else logs.begin(job.id, job.generation, job.attempt, job.token, seals)
    try:
        with resuming(job.actor, job.edited_by), held(task, job, page), watching(task, job.id):
            check_permission(task, job)  # here, so that its claim is kept while somebody is asked
            return _run_here(task, request, values, page)
    finally:
        if log is not None:
            log.end()
        if (reporter := getattr(request, "reporter", None)) is not None:
            reporter.close()


def _run_here(task: RunnableTask, request: Any, values: dict[str, Any], page: Page | None) -> Any:
    """Run it, and let no process that it has forked come back as if it were this one: it would go on with the next jobs."""
    process = os.getpid()
    if soft_limit.process != process:
        soft_limit.install()
    try:
        result = task.run(**values)
    except BaseException as raised:
        error = _with_text(raised)
        soft_limit.over = request  # before all else: see `ends_in`
        end_if_forked(process, error)
        end_own_code(task, request)
        if error is raised:
            raise
        raise error from None  # whoever prints the chain would read that text again
    soft_limit.over = request
    end_if_forked(process, None)
    if page is not None:  # what `end_own_code` does; the rest of it is known here
        page.settle()
    return result


def _with_text(error: BaseException) -> BaseException:
    """Read the texts of an error and its causes, which are code of the job, too, while its limits hold. Returns the error, or what took its place.

    Whoever records the outcome reads them again, where nothing can end that.
    """
    one: BaseException | None = error
    for _ in range(LONGEST_CHAIN):
        if one is None:
            break
        try:
            str(one)
        except SoftTimeLimitExceeded:
            text = f"the soft time limit has passed while the text of {type(one).__name__} was read"
            late: BaseException = SoftTimeLimitExceeded(text)
            return late.with_traceback(error.__traceback__)
        except BaseException:  # noqa: BLE001, S110  # `text_of` says so
            pass
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return error


soft_limit.ends_in(_run_here.__code__)
soft_limit.ends_in(_with_text.__code__)


def _finish(task: RunnableTask, request: Any, job: Attempt, result: Any, outcomes: Outcomes) -> Any:
    written = None
    try:
        if result is not None:
            result = task.returned.json(result)
            written = encode_result(job.task, result, task.app.settings.result_limit)
            if job.sealed:
                written = sealed_result(task, job, written)
    except PayloadError as error:  # its effect happened, so it must not run again
        raise end_dead(task, job, error) from None
    except (TypeError, ValueError, RecursionError) as error:  # the same
        refused = PayloadError(f"{job.task}: the result cannot be written as JSON ({error}); return JSON values")
        raise end_dead(task, job, refused) from error
    if not request.is_eager:
        outcomes.succeeded(task, job, written)
    job.ended = True
    return result


def _rejected(task: RunnableTask, job: Attempt, rejected: Any) -> Exception:
    if rejected.requeue:
        return end_released(task, job, None, rejected, keep=True)
    reason = rejected.reason
    return end_dead(task, job, reason if isinstance(reason, Exception) else JobRejected(f"the task said: {reason}"))
