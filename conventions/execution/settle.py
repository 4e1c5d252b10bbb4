"""How a job ends: what is settled, what becomes of its message, and what Celery is told.

Settling is one step in Redis: claim, message and journal change together, so that nothing is acknowledged before its
outcome is recorded. Functions here return what the pipeline must raise.
"""

import logging
import time
from typing import Any, Literal, Protocol

from celery.exceptions import Ignore, Reject
from redis.exceptions import RedisError

from conventions.broker.batch_membership import Outcome
from conventions.core import error_text
from conventions.core.deadline import Deadline
from conventions.core.errors import LeaseLost
from conventions.core.lease_timings import SETTLE_FOR
from conventions.execution.application import Application, may_pass
from conventions.execution.attempt import Attempt
from conventions.execution.attempt_event import event_of
from conventions.execution.batch_follow_up import follow_up, join_of
from conventions.execution.failure_log import log_failure
from conventions.execution.follow_ups import StepsNotSent
from conventions.execution.process_state import end_own_code
from conventions.execution.runnable_task import RunnableTask
from conventions.execution.soft_time_limit import soft_limit
from conventions.idempotency.claims import Settled, Settlement, State
from conventions.library_internals.celery import result_is_ignored

logger = logging.getLogger(__name__)

TAKEN_OVER = (
    "it was ended from outside, or its lease was over and another worker has taken it over; what this one did is not recorded; if it was "
    "the lease, report progress more often, or raise stall_after"
)
SHORT = 1000  # characters of an error that a claim keeps
TELL_WITHIN = (
    10.0  # seconds in which all who wait for a message that never ran must have heard of its end; else it comes again
)


def has_follow_ups(task: RunnableTask) -> bool:
    """Whether Celery sends or stores something after the job of the current request has ended."""
    request = task.request
    return bool(request.callbacks or request.chain or request.chord or not result_is_ignored(task, request))


def tells_of_failure(task: RunnableTask) -> bool:
    """Whether Celery tells somebody of a failure of the current request."""
    return has_follow_ups(task) or bool(task.request.errbacks)


def settle(
    task: RunnableTask,
    job: Attempt,
    state: State,
    kind: str | None,
    *,
    error: BaseException | None = None,
    claimed: bool = True,
    patience: float = SETTLE_FOR,
    outcome: Outcome | None = None,
    **how: Any,
) -> Settled:
    """Record an outcome that is no success, and send what the job's batch waits for.

    Args:
        task: the running task.
        job: its attempt.
        state: what becomes of the claim.
        kind: of the journal's event; `None`: the journal has nothing to say.
        error: what the attempt failed with.
        claimed: whether the job holds its claim.
        patience: seconds that an unreachable Redis is tried.
        outcome: for the job's batch, where the message ends here and is neither done nor dead.
        how: further fields of `Settlement`.

    Raises:
        Reject: Redis was not there for so long; the message goes back.
    """
    if soft_limit.over is not task.request:  # its own code may never have begun
        end_own_code(task, task.request)
    if error is not None and job.log is not None:
        job.log.keep()  # first, so that who sees the failure finds them
    event = event_of(task, job, kind, error) if kind else None
    join = join_of(task.app, job.member, "dead" if state == "dead" else outcome)
    settlement = Settlement(job.claim, state, event, claimed=claimed, join=join, **how)
    return _settled(task, job, settlement, patience)


def _settled(task: RunnableTask, job: Attempt, settlement: Settlement, patience: float = SETTLE_FOR) -> Settled:
    answer = recorded(task.app, settlement, patience)
    if answer == "refused":
        superseded(job)
    elif settlement.join:
        follow_up(task.app, settlement.join.member)
    return answer


def recorded(app: Application, settlement: Settlement, patience: float = SETTLE_FOR) -> Settled:
    """Record one outcome, for so many seconds. Raises: Reject, so that the message comes again."""
    deadline = time.monotonic() + patience
    while True:
        try:
            answer = app.claims.settle([settlement])[0]
            if settlement.state == "dead" or app.settings.wait_for_disk:
                app.port.secure()
        except RedisError as unreachable:
            if time.monotonic() > deadline:
                raise Reject(unreachable, requeue=True) from unreachable
            logger.warning("outcome not recorded yet: id=%s: %s", settlement.request.message_id, unreachable)
            time.sleep(1)
        else:
            return answer


def success_of(task: RunnableTask, job: Attempt, result: bytes | None, *, keep: bool) -> Settlement:
    """The success of a job.

    Args:
        task: the running task.
        job: its attempt.
        result: as JSON.
        keep: whether the message stays until what follows the job was sent.
    """
    join = join_of(task.app, job.member, "done")
    action: Literal["keep", "remove"] = "keep" if keep else "remove"
    return Settlement(job.claim, "done", event_of(task, job, "succeeded"), result, action=action, join=join)


class Outcomes(Protocol):
    """Where successes are recorded. `RecordedAtOnce` waits for the server; another one may tell it without a wait."""

    @property
    def may_be_followed(self) -> bool:
        """Whether callbacks or a chain may follow its jobs. Else nobody asks their messages."""

    def succeeded(self, task: RunnableTask, job: Attempt, result: bytes | None) -> None:
        """Record success, with the result as JSON. Raises: Reject, so that the message comes again."""


class RecordedAtOnce:
    """Records each success as any other outcome."""

    may_be_followed = True

    def succeeded(self, task: RunnableTask, job: Attempt, result: bytes | None) -> None:
        """Record success, and wait for the answer. Raises: Reject, also if another worker holds the claim: the message comes again and finds its outcome."""
        answer = _settled(task, job, success_of(task, job, result, keep=has_follow_ups(task)))
        if answer == "refused":
            raise taken_over()


AT_ONCE: Outcomes = RecordedAtOnce()


def taken_over() -> Exception:
    """Whoever holds the claim now ends it; this message comes again, and finds how."""
    comes_again: Exception = Reject(LeaseLost(TAKEN_OVER), requeue=True)
    return comes_again


def superseded(job: Attempt) -> Exception:
    """Say in the log that a job is no longer this delivery's. Returns what to raise, see `taken_over`."""
    logger.warning("superseded: id=%s task=%s: %s", job.id, job.task, TAKEN_OVER)
    return taken_over()


def end_without_run(task: RunnableTask, job: Attempt, kind: str, *, keep: bool = False) -> Exception:
    """Record that the message ends here without having run. Returns what to raise."""
    outcome: Outcome | None = "cancelled" if kind == "cancelled" else None  # of the others, another copy joins
    settle(task, job, "released", kind, claimed=False, outcome=outcome, action="keep" if keep else "remove")
    ended: Exception = Ignore()
    return ended


def end_released(
    task: RunnableTask, job: Attempt, kind: str | None, ending: Exception, *, keep: bool = False
) -> Exception:
    """Record an end that is neither success nor failure, and leave the key to others. Returns what to raise."""
    if not task.request.is_eager:
        outcome: Outcome | None = None if keep else "cancelled"
        settle(task, job, "released", kind, outcome=outcome, action="keep" if keep else "remove")
    return ending


def end_cancelled(task: RunnableTask, job: Attempt, *, claimed: bool) -> Exception:
    """Tell those who wait for a cancelled message, and then record its end, after which it never comes again.

    Args:
        task: the running task.
        job: its attempt.
        claimed: whether the job holds its claim.

    Returns:
        What to raise.
    """
    end_own_code(task, task.request)  # no limit ends it any more
    try:
        _tell_of_cancel(task, job)
    except Exception as error:
        if may_pass(task.app, error):
            comes_again = StepsNotSent.of(error, "those who wait for it are not told that it was cancelled")
            return end_released(task, job, None, comes_again, keep=True) if claimed else comes_again
        logger.exception("those who wait for it are not told that it was cancelled: id=%s task=%s", job.id, job.task)
    return end_released(task, job, "cancelled", Ignore()) if claimed else end_without_run(task, job, "cancelled")


def _tell_of_cancel(task: RunnableTask, job: Attempt) -> None:
    request = task.request
    if request.is_eager or not has_follow_ups(task):
        return
    job.ended = True  # what is sent now follows it
    try:
        with Deadline(TELL_WITHIN):
            kept = not result_is_ignored(task, request)
            task.app.backend.tell_of_end(request, "cancelled", store_result=kept)
    finally:
        job.ended = False


def end_dead(
    task: RunnableTask, job: Attempt, error: Exception, *, claimed: bool = True, patience: float = SETTLE_FOR
) -> Exception:
    """Record a dead letter, and tell the task. Returns what to raise."""
    log_failure(job, error, "dead letter")
    if task.request.is_eager:
        return error
    # Kept until whoever waits for it has heard of it; a message that comes again tells them once more.
    action = "keep" if task.hears_of_death or tells_of_failure(task) else "remove"
    text = f"{type(error).__name__}: {error_text.text_for(error, sealed=job.sealed)[:SHORT]}"
    answer = settle(
        task, job, "dead", "dead", error=error, result=text, claimed=claimed, patience=patience, action=action
    )
    return taken_over() if answer == "refused" else tell_of_death(task, job, error)


def tell_of_death(task: RunnableTask, job: Attempt, error: Exception) -> Exception:
    """Tell the task that its message is a dead letter. Returns what to raise."""
    try:
        task.on_dead(job, error)
    except Exception as fault:
        told = None if job.sealed else fault
        logger.error(
            "not told of its dead letter yet: id=%s task=%s: %s", job.id, job.task, type(fault).__name__, exc_info=told
        )
        comes_again: Exception = Reject(fault, requeue=True)
        return comes_again
    job.ended = True  # what is sent now are its errbacks
    return error
