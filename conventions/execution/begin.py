"""How a worker begins a message: its arguments are checked and its claim is taken, or it ends here.

A message of ours names its key, so its claim is asked for first, and the arguments are checked while the server works.
Another program's message has no key before its arguments are bound.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from celery.exceptions import Ignore, Reject, Retry
from redis.exceptions import RedisError

from conventions.broker.header_names import KEY
from conventions.core.error_text import first_line, without_values
from conventions.core.errors import (
    CannotOpen,
    IdempotencyConflict,
    JobFailed,
    PayloadError,
    PermissionDenied,
    TooManyStarts,
    TooOldToTell,
)
from conventions.execution.attempt import Attempt
from conventions.execution.failed_attempt import end_failed
from conventions.execution.key_in_use import park
from conventions.execution.permission_check import check_permission, check_unclaimed
from conventions.execution.process_ends import UNKNOWN
from conventions.execution.process_state import begin_job
from conventions.execution.record_interrupted import record_interrupted
from conventions.execution.retry_message import put_back
from conventions.execution.runnable_task import RunnableTask
from conventions.execution.sealed_outcomes import opened
from conventions.execution.settle import (
    end_cancelled,
    end_dead,
    end_without_run,
    has_follow_ups,
    tell_of_death,
    tells_of_failure,
)
from conventions.idempotency.claim_answers import (
    Alone,
    Answer,
    Busy,
    Cancelled,
    Conflict,
    Dead,
    Done,
    Granted,
    Parked,
    Poison,
    Stale,
    Superseded,
    TooOld,
    conflict,
)
from conventions.library_internals.celery import result_is_ignored
from conventions.sealing.sealed_body import UNOPENED
from conventions.storage.script_call import ScriptCall

logger = logging.getLogger(__name__)

ENDINGS = (
    Ignore,
    Reject,
    Retry,
    PayloadError,
    JobFailed,
    IdempotencyConflict,
    PermissionDenied,
    TooManyStarts,
    TooOldToTell,
)


Begun: TypeAlias = tuple[Attempt, dict[str, Any], Done | None]
"""The job, the arguments of `run`, and its stored answer if it was done before."""


def begin(task: RunnableTask, request: Any, args: Any, kwargs: Any) -> Begun:
    """Begin the task's current request.

    Raises:
        PayloadError: the arguments do not fit; in a worker, the message is a dead letter then.
        JobFailed, IdempotencyConflict, TooManyStarts, TooOldToTell: the message is a dead letter, because of its claim.
        Ignore, Reject: the message ends here without one, or comes again.
    """
    if request.is_eager:
        return *_bound(task, args, kwargs), None
    if not args and getattr(request, KEY, None):
        return _claim_first(task, kwargs or {})
    job, values = _bound(task, args, kwargs)
    begin_job(task, job)
    with closing(task.app.claims.ask([job.claim])) as asked:
        return job, values, _claim(task, job, asked)


def _bound(task: RunnableTask, args: Any, kwargs: Any) -> tuple[Attempt, dict[str, Any]]:
    try:
        if (closed := unopened(task.request)) is not None:
            raise without_values(CannotOpen(closed))  # it ends as any other fault of the arguments
        values = task.arguments.load(args or (), kwargs or {})
    except PayloadError as error:
        job = task.request.job = Attempt.of(task, dict(kwargs or {}))
        raise end_dead(task, job, error, claimed=False) from None
    job = task.request.job = Attempt.of(task, task.arguments.bind((), values))
    return job, values


def _claim_first(task: RunnableTask, payload: Mapping[str, Any]) -> Begun:
    job = task.request.job = Attempt.of(task, dict(payload))
    begin_job(task, job)
    with closing(task.app.claims.ask([job.claim])) as asked:
        values, fault = loaded(task, payload, unopened(task.request))
        found = _claim(task, job, asked)
    return _begun(task, job, values, fault, found)


def begin_answered(
    task: RunnableTask,
    request: Any,
    job: Attempt,
    *,
    values: dict[str, Any],
    fault: PayloadError | None,
    answer: Answer,
) -> Begun:
    """As `begin`, where the claim has been asked for.

    Args:
        task: the running task.
        request: its current one.
        job: its attempt.
        values: the arguments of `run`.
        fault: what is wrong with them, as `loaded` says.
        answer: to the claim.
    """
    request.job = job
    begin_job(task, job)
    return _begun(task, job, values, fault, _act_on(task, job, answer))


def _begun(
    task: RunnableTask, job: Attempt, values: dict[str, Any], fault: PayloadError | None, found: Done | None
) -> Begun:
    if fault is not None and (found is None or isinstance(fault, CannotOpen)):  # then nobody knows what follows it
        raise end_dead(task, job, fault, claimed=found is None)
    return job, values, found


def loaded(
    task: RunnableTask, payload: Mapping[str, Any], closed: str | None
) -> tuple[dict[str, Any], PayloadError | None]:
    """The arguments of `run`, or what is wrong with them, as after a deploy that changed the signature; `closed`: why they could not be opened."""
    if closed is not None:
        return {}, CannotOpen(closed)
    try:
        return task.arguments.load((), payload), None
    except PayloadError as fault:
        return {}, fault


def unopened(request: Any) -> str | None:
    """Why a sealed message could not be opened here; `None`: it is open, or was not sealed."""
    return getattr(request, UNOPENED, None)


def _claim(task: RunnableTask, job: Attempt, asked: ScriptCall) -> Done | None:
    """Take the job's claim; the stored answer when it was finished before. Raises what ends this delivery."""
    try:
        (answer,) = task.app.claims.answers(asked)
    except RedisError as error:
        raise _not_started(task, job, error) from error
    return _act_on(task, job, answer)


def _not_started(task: RunnableTask, job: Attempt, error: RedisError) -> Exception:
    logger.error("not started: id=%s task=%s: Redis does not answer: %s", job.id, job.task, error)
    return put_back(task, job)


def _as_of_now(task: RunnableTask, job: Attempt, answer: Answer) -> Answer:
    """The answer, asked for again where this process stood still since: its lease may be over, and another may have run the job."""
    if not isinstance(answer, Granted) or time.monotonic() - job.claim.asked_at <= task.app.claims.lease:
        return answer
    try:
        if all(task.app.claims.renew([job.claim])):
            return answer
        answers: list[Answer] = task.app.claims.take([job.claim])
    except RedisError as error:
        raise _not_started(task, job, error) from error
    return answers[0]


def _act_on(task: RunnableTask, job: Attempt, answer: Answer) -> Done | None:
    """Act on the answer to the claim. Returns the stored result if the job was done before. Raises what ends this delivery."""
    answer = _as_of_now(task, job, answer)
    record_interrupted(task, job, answer)
    if isinstance(answer, Granted):
        job.started_at = datetime.now(UTC)
        return None
    match answer:
        case Done():
            return _done_before(task, job, _heard(task, job, answer))
        case Parked():
            logger.info("parked: id=%s task=%s: its key is in use, for %.1f s at most", job.id, job.task, answer.wait)
            raise Ignore
        case Alone():
            logger.info("alone: id=%s task=%s: it was started before without an outcome", job.id, job.task)
            raise Ignore
        case Busy():
            raise park(task, job, answer)
        case Stale():
            logger.info("stale: id=%s task=%s: the message is in other hands", job.id, job.task)
            raise Ignore
        case Superseded():
            logger.info("superseded: id=%s task=%s: another copy is further on", job.id, job.task)
            raise end_without_run(task, job, "superseded")
        case Cancelled():
            logger.info("cancelled: id=%s task=%s", job.id, job.task)
            raise end_cancelled(task, job, claimed=False)
        case Dead():  # recorded; only those who wait for it may not have heard
            raise _told_again(task, job, answer)
    raise end_dead(task, job, _refusal(task, job, answer), claimed=isinstance(answer, Poison))


def _heard(task: RunnableTask, job: Attempt, done: Done) -> Done:
    """The stored answer of the job's first run. First ask whether the actor may run the job. Raises what ends this delivery."""
    if done.message_id != job.id or has_follow_ups(task):
        _check_unclaimed(task, job)
    elif task.requires is not None:  # the message only comes again, and nobody waits for the result
        return replace(done, result=None)
    return done


def _told_again(task: RunnableTask, job: Attempt, dead: Dead) -> Exception:
    """Tell those who wait for a dead letter how it died. Returns what to raise."""
    task.app.port.secure()  # the worker that recorded it may have given up before it was on the disk
    failed = _denied_to_hear(task, job) or JobFailed(dead.error or "its dead letter says how")
    told = tell_of_death(task, job, failed)
    return told if told is not failed or tells_of_failure(task) else Ignore()


def _check_unclaimed(task: RunnableTask, job: Attempt) -> None:
    """What becomes of another job with its key is for those only who may run it. Raises what ends this delivery.

    Also where the key was used under this very id: its sender may have chosen that.
    """
    try:
        check_unclaimed(task, job)
    except RedisError as error:
        raise _not_started(task, job, error) from error
    except TooManyStarts as error:
        raise end_dead(task, job, error, claimed=False) from None
    except Exception as error:
        ending = end_failed(task, job, error, claimed=False)
        raise ending if isinstance(ending, ENDINGS) else PermissionDenied(str(error)) from error


def _denied_to_hear(task: RunnableTask, job: Attempt) -> PermissionDenied | None:
    """Why those who wait for a message do not hear how a dead letter of its id died: whoever sent it may have chosen that id."""
    try:
        check_permission(task, job)
    except PermissionDenied as denied:
        return denied
    except Exception as error:  # noqa: BLE001  # nobody can say it now
        return PermissionDenied(first_line(error))
    return None


def _refusal(task: RunnableTask, job: Attempt, answer: Conflict | Poison | TooOld) -> Exception:
    match answer:
        case Conflict():
            _check_unclaimed(task, job)
            return conflict(job.task, job.key, answer.message_id)
        case Poison():
            return without_values(
                TooManyStarts(
                    f"{job.task}: started {answer.starts} times without an outcome, since its process ended each time; the last "
                    f"time {answer.why or UNKNOWN}"
                )
            )
        case TooOld():
            return without_values(
                TooOldToTell(
                    f"{job.task}: sent at {job.enqueued_at}, which is longer ago than what is remembered "
                    f"({job.horizon}): nobody can tell whether it ran; redrive it to run it"
                )
            )


def _done_before(task: RunnableTask, job: Attempt, done: Done) -> Done:
    """The stored result; what follows this message goes on with it, unless that was sent before."""
    done, again = opened(task, job, done), done.message_id == job.id
    if again:
        logger.info("comes again: id=%s task=%s: done before, for what follows it", job.id, job.task)
    else:
        logger.info("duplicate: id=%s task=%s: done before by id=%s", job.id, job.task, done.message_id)
    were_sent = again and done.follow_ups_sent
    if not again or job.generation:  # a redrive must hear that it has ended
        end_without_run(task, job, "duplicate", keep=has_follow_ups(task) and not were_sent)
    if not again and job.member and job.member.role == "splitter":
        with suppress(RedisError):  # only that nobody finds the batch by this id
            ignored = result_is_ignored(task, task.request)
            task.app.batches.note_duplicate(job.id, done.message_id, ignored=ignored)
    if were_sent:
        raise Ignore
    return done
