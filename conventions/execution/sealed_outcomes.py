"""What a sealed job leaves behind is sealed as its message was: its result, and the record of its effect (R21)."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from celery.exceptions import Ignore, Reject, Retry

from conventions.broker.codec import json_of_kombu
from conventions.core.canonical_json import encode
from conventions.core.error_text import says_nothing, without_values
from conventions.core.errors import CannotOpen, JobFailed
from conventions.core.sealed_mark import SHOWN
from conventions.execution.attempt import Attempt
from conventions.execution.runnable_task import RunnableTask
from conventions.execution.settle import end_dead, has_follow_ups
from conventions.idempotency.claim_answers import Done
from conventions.library_internals.celery import result_is_ignored
from conventions.sealing.sealed_text import LOG, RESULT, chunk_owner, open_json, seal_json, seal_text

_told_whole = [False]


@contextmanager
def telling_whole() -> Iterator[None]:
    """Within, Celery's hooks in this process are told results and errors of sealed jobs as they are: for tests, which look at them. What is stored is sealed."""
    _told_whole[0] = True
    try:
        yield
    finally:
        _told_whole[0] = False


def sealed_result(task: RunnableTask, job: Attempt, written: bytes) -> bytes:
    """A result as its claim keeps it; `written`: as JSON."""
    keys = task.app.payload_keys
    return seal_json(keys, written, RESULT, _owner(job, job.key)) if job.sealed and keys is not None else written


def told_result(task: RunnableTask, job: Attempt, result: Any) -> Any:
    """What Celery is told of a result: it stores it, writes it into events, and hands it to the main process. Sealed, where somebody asks for it."""
    keys = task.app.payload_keys
    if _told_whole[0]:
        return result
    if result is None or keys is None or (result_is_ignored(task, task.request) and not task.request.chord):
        return None
    return seal_text(keys, json_of_kombu(result), RESULT, job.id)


def log_sealer(task: RunnableTask, job: Attempt) -> Callable[[str], str] | None:
    """What seals the lines of the log of a sealed job."""
    keys = task.app.payload_keys
    return None if keys is None else lambda text: seal_text(keys, text, LOG, job.id)


def kept_result(task: RunnableTask, job: Attempt, result: Any, key: str) -> Any:
    """A result as the record of an effect keeps it, under one of the keys of a sealed job. Raises: TypeError, ValueError: it is no JSON."""
    keys = task.app.payload_keys
    if result is None or keys is None:
        return result
    return json.loads(seal_json(keys, encode(result), RESULT, _owner(job, key)))


def opened_result(task: RunnableTask, job: Attempt, value: Any) -> Any:
    """The result of the first run of a key, as its claim or the record of its effect keeps it. Raises: CannotOpen: of a sealed job."""
    keys = [job.key, *(key for key, _ in job.claim.names if key != job.key)]  # a record has one of its names
    for key in keys:
        try:
            return open_json(task.app.payload_keys, value, RESULT, _owner(job, key))
        except CannotOpen:
            if job.sealed and key == keys[-1]:
                raise
    return value  # a text of a job that is not sealed may begin like a sealed one


def opened(task: RunnableTask, job: Attempt, done: Done) -> Done:
    """The answer of a claim with its result. Raises: what ends this delivery, where something waits for a result that cannot be opened here."""
    try:
        return replace(done, result=opened_result(task, job, done.result))
    except CannotOpen as error:
        if not has_follow_ups(task):
            return replace(done, result=None)
        raise end_dead(task, job, error, claimed=False) from None


def _owner(job: Attempt, key: str) -> str:
    member = job.member
    return chunk_owner(member.batch_id, member.number) if member and member.role == "chunk" else f"{job.task}:{key}"


def hidden(task: str, ending: BaseException) -> BaseException:
    """What Celery is told in the place of an error: its class alone, since Celery logs the text, stores it, and hands it to the main process."""
    found: BaseException = ending
    if _told_whole[0]:
        return ending
    if isinstance(ending, Retry):
        found = Retry(exc=failed(task, ending.exc), when=ending.when)
    elif isinstance(ending, Reject):
        found = Reject(type(ending.reason).__name__, requeue=ending.requeue)
    elif isinstance(ending, Exception) and not isinstance(ending, Ignore):
        found = failed(task, ending)
    return found


def failed(task: str, error: Any) -> Exception:
    """What stands for an error of a sealed job."""
    if isinstance(error, Exception) and says_nothing(error):
        return without_values(type(error)(str(error)))  # without the errors and the variables behind it
    return JobFailed(f"{task}: {type(error).__name__} {SHOWN}")
