"""A delivered message as the worker's main process sees it: what it is, when it runs, how its process ended."""

import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Protocol

import celery
from celery.exceptions import Ignore, InvalidTaskError, Retry, Terminated, TimeLimitExceeded, WorkerLostError
from celery.worker import state
from celery.worker.request import Request as CeleryRequest
from redis.exceptions import RedisError

from conventions.broker.codec import DELIVERY, bytes_of_body
from conventions.broker.delivery_names import new_name
from conventions.broker.header_names import FINGERPRINT, GENERATION, KEY, TOKEN
from conventions.broker.in_flight import Start
from conventions.broker.message_form import drop_taken, fault_of
from conventions.broker.signature import as_sent
from conventions.core.deadline import Deadline
from conventions.core.errors import PayloadError
from conventions.core.lease_timings import SETTLE_FOR
from conventions.execution.application import may_pass
from conventions.execution.attempt import Attempt
from conventions.execution.attempt_event import event_of
from conventions.execution.follow_ups import StepsNotSent
from conventions.execution.process_ends import has_ended
from conventions.execution.runnable_task import RunnableTask
from conventions.execution.settle import TELL_WITHIN, end_dead
from conventions.idempotency.claims import BeforeItsEnd
from conventions.library_internals.billiard import ExceptionInfo, error_of, raised_by_celery, worker_lost
from conventions.library_internals.celery import running_tasks
from conventions.library_internals.celery_worker import can_signal, signal_number
from conventions.library_internals.kombu import as_decoded
from conventions.progress.overlong_jobs import note
from conventions.records.journal import Event
from conventions.sealing.sealed_body import BodyOfFunction, SealedBody, follows, is_sealed
from conventions.worker.application import WorkerApplication
from conventions.worker.claim_names_in_rotation import named
from conventions.worker.cut_off import is_cut_off

logger = logging.getLogger(__name__)

NOT_RECORDED = "its worker could not record how it ended"
PROCESS_DIED = (WorkerLostError, Terminated, SystemExit, KeyboardInterrupt)
PROCESSES = 1 << 22  # more than the number of any process
DEATH_WITHIN = 2.0  # seconds that the worker's loop takes to record that a job is dead, or to ask for the end of one
DEATH_AGAIN = 1.0  # seconds until a thread tries again
OUTCOMES = ("done", "dead")
ATTEMPT_ENDED = (*OUTCOMES, "released", "continued")
COMES_AGAIN = 1.0  # seconds until a message comes again that could not be ended; twice as long each time


def leave_closed(message: Any) -> None:
    """Let Celery see no arguments and no steps of a sealed message: the process that runs its job opens it."""
    as_decoded(message, [[], {}, {}])


class PlainRequest(CeleryRequest):
    """A delivered message of one of Celery's own tasks.

    Attributes:
        why: its process was ended here, where that is so.
        sealed: its body, where that is sealed; then arguments and steps are empty here.
        signalled: whether its process was sent a signal, to end it.
    """

    app: WorkerApplication

    why = ""
    delivery: Any  # what the channel knows of a message in Redis; `None` elsewhere
    sealed: SealedBody | None = None
    sealed_as: ClassVar[type[SealedBody]] = BodyOfFunction
    token: str
    _already_revoked: bool
    signalled = False

    def __init__(self, message: Any, *args: Any, **options: Any) -> None:
        if is_sealed(message.content_type):
            leave_closed(message)
        try:
            super().__init__(message, *args, **options)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise InvalidTaskError(f"its body is not [arguments, named arguments, options]: {error}") from error
        drop_taken(self._request_dict)
        embed = self._payload[2]
        if fault := fault_of(message.headers if options.get("headers") is None else options["headers"], message.properties,
                             self._args, self._kwargs, embed):  # fmt: skip
            raise InvalidTaskError(fault)
        self.delivery = (message.properties or {}).get(DELIVERY)
        if is_sealed(message.content_type):
            self._seal(bytes_of_body(message.body))
            embed = dict.fromkeys(follows(self._request_dict), True)
        self.token = self._request_dict[TOKEN] = self.delivery["receipt"] if self.delivery else new_name()
        self.embed = embed = embed or {}
        self.has_follow_ups = bool(embed.get("callbacks") or embed.get("chain") or embed.get("chord")) or (
            not self._ignore_result
        )

    def _seal(self, body: bytes) -> None:
        """Hand the body over to the pool as it is."""
        sent = as_sent(self._request_dict, self.delivery or {})
        self.sealed = self._body = self.sealed_as.of(sent, body)
        self._content_type = self._content_encoding = None  # Celery's tracer takes it apart, and decodes nothing

    @functools.cached_property
    def _context(self) -> Any:
        """As Celery. Of a sealed message the steps are opened here: its job ends in this process, and they must hear of it."""
        if self.sealed is not None:
            self._request_dict.update(self.sealed.steps)
        return super()._context

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002  # Celery's signature
        """What `inspect` shows: arguments cut short, as they are in logs."""
        found: dict[str, Any] = super().info(safe=True)
        return found

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """The pool has begun."""
        self.accept(pid, time_accepted)
        self.begin()

    def accept(self, pid: int, time_accepted: float) -> None:
        """Tell Celery so, and nobody else."""
        super().on_accepted(pid, time_accepted)

    def begin(self) -> None:
        """Say that the job runs."""
        if self.delivery:
            self.app.in_flight.begin(self.delivery["receipt"], "", self.token, lambda: False)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Acknowledge or return the message of a job that failed."""
        exc = error_of(exc_info)
        told_to_end = self.signalled or self._already_revoked or self._already_cancelled
        if isinstance(exc, Terminated) and not told_to_end:
            # A process that outlives a signal is marked in billiard for good, also when a later job ends it.
            exc = exc_info.exception = worker_lost(exc)
        if isinstance(exc, MemoryError):  # Celery would end the worker, and the message would end the next one
            exc_info.exception = RuntimeError(f"MemoryError: {exc}")
        elif isinstance(exc, TimeLimitExceeded) and not return_ok:
            return  # Celery would acknowledge; the pool calls `on_timeout` next
        elif not return_ok and not (self._already_revoked or self._already_cancelled):
            if not isinstance(exc, PROCESS_DIED):  # Celery would tell a chord that it has failed, but it comes again
                self._has_not_ended(exc_info)
                return
            self.on_lost(exc)  # nobody has settled it
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _has_not_ended(self, exc_info: Any) -> None:
        logger.error("not ended: id=%s task=%s: it comes again", self.id, self.name, exc_info=exc_info.exc_info)
        self.come_again(error_of(exc_info))

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The job is beyond a limit. At the hard one, record a dead letter before the process is killed after this."""
        error = TimeLimitExceeded(timeout)
        if not soft and has_ended(self.worker_pid):  # the pool has not seen that yet
            try:
                raise WorkerLostError("its process ended before its time limit")  # noqa: TRY301  # with a traceback, as Celery wants it
            except WorkerLostError:
                self.on_failure(ExceptionInfo())
        elif soft:
            super().on_timeout(soft, timeout)
        elif recorded := not state.should_terminate and self.record_death(error):
            try:
                with self._followed():
                    super().on_timeout(soft, timeout)
            except Exception:  # the pool would drop the error, and the message would keep its place
                logger.exception("not told of its dead letter yet: id=%s task=%s: it comes again", self.id, self.name)
                self.come_again(error)  # and finds its letter
        elif recorded is None:
            self._leave_room()
        else:
            self.come_again(error)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """As Celery. One that waits for a thread cannot be ended, and must not fail when a thread takes it."""
        if self.time_start or can_signal(pool):
            self.signalled = True
            super().terminate(pool, signal)

    def on_exit(self, error: BaseException) -> None:
        """The job has called `sys.exit` in a pool without processes of its own: it would do so each time."""
        recorded = self.record_death(RuntimeError(f"the task called sys.exit: {error}"))
        if recorded:
            self.acknowledge()
            state.task_ready(self)
        elif recorded is None:
            self._leave_room()
        else:
            self.come_again(error)

    def come_again(self, error: BaseException) -> None:
        """Return the message, and let Celery forget this delivery of it."""
        self._return(error)
        self._leave_room()

    def _return(self, error: BaseException) -> None:
        """Let the message come again, from any thread and on any broker."""
        self.on_lost(error)
        if not self.delivery:
            self.app.hung_jobs.forget(self)
            self.app.loop_calls.later(COMES_AGAIN, lambda: self.reject(requeue=True))

    def record_death(self, error: Exception) -> bool | None:
        """Record that the job has ended as dead.

        Returns:
            False when it has not, and the message must come again; `None` while the store does not answer: a thread tries further, since
            this one keeps everything else, and the message is held until then.
        """
        with Deadline(DEATH_WITHIN):
            recorded = self._settle_death(error, 0.0)
        if recorded is not None:
            return recorded
        logger.warning(
            "dead letter not recorded yet: id=%s task=%s: the store does not answer; the message is held, and it is tried again for %g s",
            self.id, self.name, SETTLE_FOR,
        )  # fmt: skip
        # What ran is over, so nobody looks at its lease.
        self.app.hung_jobs.forget(self)
        if self.delivery:
            self.app.in_flight.begin(self.delivery["receipt"], "", self.token, lambda: False)
        threading.Thread(target=self._record_death_later, args=(error,), name="death", daemon=True).start()
        return None

    def _record_death_later(self, error: Exception) -> None:
        deadline, recorded = time.monotonic() + SETTLE_FOR, None
        try:
            while recorded is None and time.monotonic() < deadline:
                recorded = self._settle_death(error, SETTLE_FOR)
                time.sleep(0.0 if recorded is not None else DEATH_AGAIN)
            if recorded is None:
                logger.error(
                    "dead letter not stored: id=%s task=%s: the store did not answer for %g s; the message comes again",
                    self.id, self.name, SETTLE_FOR,
                )  # fmt: skip
            elif recorded:  # as Celery does in `on_timeout`
                with self._followed():
                    self.task.backend.mark_as_failure(
                        self.id, error, request=self._context, store_result=self.store_errors
                    )
        except Exception:
            logger.exception("not told of its dead letter yet: id=%s task=%s", self.id, self.name)
            recorded = False  # it comes again, and finds its letter
        if not recorded:
            self._return(error)
        elif self.delivery:
            self.app.in_flight.acknowledge(self.delivery["receipt"])
        else:
            self.app.loop_calls.in_loop(self.acknowledge)

    @contextmanager
    def _followed(self) -> Iterator[None]:
        """Within, what is sent follows the job, whose process is gone or never had it: it has its actor."""
        running_tasks.push(self.task)
        self.task.request_stack.push(self._context)
        try:
            yield
        finally:
            self.task.request_stack.pop()
            running_tasks.pop()

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """As Celery. What is sent to those who wait for it has its actor."""
        with self._followed():
            super()._announce_revoked(reason, terminated, signum, expired)

    def _settle_death(self, error: Exception, patience: float) -> bool | None:
        """As `record_death`, for so many seconds, or with none the first time. `None`: the store does not answer."""
        return self.app.refusals.message(self._message, error, which="another" if patience else "first") or None

    def _leave_room(self) -> None:
        """Let Celery forget this delivery, which goes back, or is held until its death is recorded."""
        state.task_ready(self)
        self.make_room()

    def make_room(self) -> None:
        """Let the worker read another message in place of this one, of which Celery acknowledges and rejects nothing.

        Where the broker is not Redis, it keeps its place until it is acknowledged or rejected after all.
        """
        if self.delivery:
            self._message.channel.qos.let_go(self._message.delivery_tag)

    def on_lost(self, error: BaseException) -> None:
        """Nobody has recorded how the job ended: release its claim, and count the start. In Redis, return the message, too.

        At once when its process died; anything else, as a result that cannot be stored, may be so the next time, too. Of a process that
        died Celery rejects the message itself; after anything else `_return` does it.
        """
        if isinstance(error, Terminated):
            error = worker_lost(error)
        if self.delivery:
            again = COMES_AGAIN * 2 ** min(self.delivery["deliveries"] - 1, 6)
            wait = 0.0 if isinstance(error, PROCESS_DIED) else min(again, 60.0)
            self.app.in_flight.give_back(self.delivery["receipt"], wait=wait, counted=True, why=self._how_ended(error))

    def _how_ended(self, error: BaseException) -> str:
        """What is known of that."""
        if not isinstance(error, PROCESS_DIED):
            return NOT_RECORDED
        self.why = self.why or self.app.process_ends.of(error)
        return self.why


class Group(Protocol):
    """Requests that are in one process, which runs one of them after the other."""

    def postpones(self, request: "Request", pool: Any, signal: Any) -> bool:
        """Whether its process is not ended by this signal now, since another one runs there; it is tried again."""


class Request(PlainRequest):
    """A delivered message of one of our tasks, as the main process sees it.

    Attributes:
        group: those with which it shares its process; `None`: it has one for itself.
    """

    task: RunnableTask

    group: Group | None = None
    sealed_as = SealedBody

    def __init__(self, message: Any, *args: Any, **options: Any) -> None:
        super().__init__(message, *args, **options)
        self._request_dict.update(named(self._request_dict, message.properties or {}, self.delivery or {}))

    _goes_on: bool = False  # its job has not ended with this message, which another one follows

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """See `PlainRequest`. What Celery raised itself, before a job or after it, ends no job: its message comes again.

        Unless its outcome is recorded, and no other moment mends the error: then it has ended, whatever Celery could not do after it.
        """
        error = error_of(exc_info)
        self._goes_on = isinstance(error, (Ignore, Retry))
        if isinstance(error, StepsNotSent):
            logger.warning(
                "what follows it is not sent yet: id=%s task=%s: it comes again: %s", self.id, self.name, error.reason
            )
            self.come_again(error)
            return
        if raised_by_celery(exc_info) if return_ok else self._is_of_celery(error):
            if may_pass(self.app, error) or not (self._has_outcome() or self._was_done()):
                self._has_not_ended(exc_info)
                return
            if not return_ok:
                logger.error(
                    "not told of its end in full: id=%s task=%s", self.id, self.name, exc_info=exc_info.exc_info
                )
                self.acknowledge()
                state.task_ready(self)
                return
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _success_was_stored(self) -> Any:
        """Whether Celery may acknowledge after the death of a process. Not for a part of a chord: its result may be stored while the chord has not heard of it."""
        return False if self.embed.get("chord") else super()._success_was_stored()

    def _is_of_celery(self, error: BaseException) -> bool:
        """Whether it came in place of an answer, and says nothing of the process."""
        return not (isinstance(error, (*PROCESS_DIED, TimeLimitExceeded)) or self.has_ended_otherwise)

    @property
    def claim(self) -> str:
        """The name of the job's claim."""
        key = self._request_dict.get(KEY)
        return f"{self.task.name}:{key}" if key else self._job().claim.claim

    def begin(self) -> None:
        """Say that the job runs, and what is to be done when it hangs."""
        start = self.start()
        if self.delivery:
            self.app.in_flight.begin_all([start])
        if not start.claim:  # no heartbeat of its message tells when its lease is over
            self.app.hung_jobs.watch(self)

    def start(self) -> Start:
        """Its start, as `InFlight` takes it."""
        return Start(
            self.delivery["receipt"] if self.delivery else "",
            self.app.port.claim_of(self.claim),
            self.token,
            self.on_lapsed,
            self.id if self.has_follow_ups else "",
        )

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End the job by a signal to its process, which must not end another job, nor keep what follows this one from being sent.

        Its claim is ended first: the job may catch the signal. An attempt that has just ended is not signalled; the next one is revoked.

        Raises:
            NotImplementedError: it runs in a thread, and goes on.
            ValueError, TypeError, AttributeError: there is no such signal. The job goes on.
        """
        number = signal_number(signal)
        if self._has_outcome() or (self.group is not None and self.group.postpones(self, pool, number)):
            return
        if not self.time_start or not can_signal(pool) or self._end_claim("itself") not in ATTEMPT_ENDED:
            super().terminate(pool, number)
            if self._already_revoked:  # it is over: a redrive of the same id must run, also here
                state.revoked.discard(self.id)

    def _runs(self) -> bool:
        try:
            return bool(self.app.claims.runs(self.claim, self.token))
        except RedisError:
            return True

    @property
    def has_ended_otherwise(self) -> bool:
        """Whether it was revoked or cancelled, and told so."""
        return bool(self._already_revoked or self._already_cancelled)

    def has_lapsed(self) -> bool:
        """Whether the lease of its claim is over. Raises: RedisError."""
        return bool(self.app.claims.has_lapsed(self.claim, self.token))

    def on_lapsed(self) -> bool:
        """Its lease is over. Returns whether it is ended here; else it is renewed again, or waits behind the one that runs."""
        why = self._stands_still()
        if why is None or not self._runs():  # with the process of the one that hangs its group may have ended meanwhile
            return False
        what, how = why
        logger.error("%s: id=%s task=%s: %s; it is ended here and runs again elsewhere", what, self.id, self.name, how)
        self.why = f"it was ended here: {how}"
        with (
            suppress(Exception),
            Deadline(DEATH_WITHIN),
        ):  # the log has it, and the thread that calls this keeps all other jobs
            self.app.claims.record_hung(
                self.claim, self.token, self._event("hung")
            )  # first: after its end nobody knows that it was told
        if self._runs_here:  # a thread cannot be ended: let the message go
            if self.delivery:
                self.app.in_flight.forget(self.delivery["receipt"])
            else:
                self.app.loop_calls.in_loop(lambda: self.reject(requeue=True))
        elif self.worker_pid:
            with suppress(ProcessLookupError):
                os.kill(self.worker_pid, signal.SIGKILL)
        return True

    @property
    def _runs_here(self) -> bool:
        """Whether it runs in a thread of this process, green or not, whose number is no process's."""
        return not self.worker_pid or self.worker_pid == os.getpid() or self.worker_pid >= PROCESSES

    def _stands_still(self) -> tuple[str, str] | None:
        """In a word and in a sentence why the job is to be ended; `None`: it is not, as far as is known."""
        silent = f"no progress for {self.task.stalls_after:g} s; report progress more often, or raise stall_after"
        limit = ("hung", silent)
        pages = self.app.pages
        if self._runs_here:
            return limit if self.app.lease_keeper.hangs(self.token) else None
        look = pages.of(self.worker_pid)
        if look is not None and look.token:
            return limit if look.token == self.token and look.hangs() else None
        if look is not None or not pages:  # its own process renews it
            return "lapsed", "its process did not renew its lease, so it stands still, or its job made no progress"
        return None

    def _event(self, kind: str) -> Event:
        self.task.request_stack.push(self._context)
        try:
            return event_of(self.task, self._job(), kind)
        finally:
            self.task.request_stack.pop()

    def on_lost(self, error: BaseException) -> None:
        """The same, of a job with a claim."""
        if isinstance(error, Terminated):
            error = worker_lost(error)
        if not is_cut_off():  # else who ends the jobs releases their claims, and counts nothing
            with suppress(RedisError), Deadline(DEATH_WITHIN):  # then its lease ends it
                self.app.port.release(self.claim, self.token, self._how_ended(error))
        super().on_lost(error)

    def acknowledge(self) -> None:
        """Acknowledge; what follows the job was sent before."""
        if self.has_follow_ups and not self.acknowledged and not self._goes_on:
            with suppress(RedisError):  # then a message that comes again sends the same messages again
                self.app.port.note_follow_ups_sent(self.claim, self.id)
        self.app.hung_jobs.forget(self)
        super().acknowledge()

    def reject(self, requeue: bool = False) -> None:
        """Return the message, or drop it. One that is cut off goes back with its process, after its claim was released."""
        if requeue and is_cut_off():
            return
        self.app.hung_jobs.forget(self)
        super().reject(requeue)

    @contextmanager
    def _followed(self) -> Iterator[None]:
        """As there; a follow-up that can never be sent becomes a dead letter."""
        job = self._context.job = self._job()
        job.ended = True
        with super()._followed():
            yield

    def _job(self) -> Attempt:
        payload = self._payload_of_job()
        self.task.request_stack.push(self._context)
        try:
            job = Attempt.of(self.task, payload)
        finally:
            self.task.request_stack.pop()
        if self.time_start:
            job.started_at = datetime.fromtimestamp(self.time_start, UTC)
        return job

    def _payload_of_job(self) -> dict[str, Any]:
        """Its arguments by name; of a sealed message none, unless its key is still to be made of them."""
        args, kwargs = self.args, self.kwargs
        if self.sealed is not None and not self._request_dict.get(KEY):
            args, kwargs, _ = self.sealed
        try:
            return dict(self.task.arguments.bind(args, kwargs))
        except (TypeError, PayloadError):
            return dict(kwargs)

    def _settle_death(self, error: Exception, patience: float) -> bool | None:
        """Settle the job, whose process is killed after this. What has ended already comes again, for what follows it."""
        if self._has_outcome():
            return False
        self.task.request_stack.push(self._context)
        try:
            ending = end_dead(self.task, self._job(), error, patience=patience)
        except celery.exceptions.Reject:
            return None
        except Exception as fault:  # whatever it is, Celery must hear of the time-out
            logger.exception("the dead letter of %s is not stored; the message comes again", self.id)
            ending = fault
        finally:
            self.task.request_stack.pop()
        if ending is error and isinstance(error, TimeLimitExceeded):
            note(self.task, self.id, float(error.args[0]))
        return ending is error

    def _has_outcome(self) -> bool:
        with suppress(RedisError), Deadline(DEATH_WITHIN):  # then nothing is recorded now, either
            generation = self._request_dict.get(GENERATION) or 0
            return bool(self.app.claims.has_ended(self.claim, self.id, generation))
        return False

    def _was_done(self) -> bool:
        """Whether the same job was done before, by this message or another one."""
        with suppress(RedisError), Deadline(DEATH_WITHIN):  # then nothing is known of it
            return bool(self.app.claims.is_done(self.claim, self.id, self._request_dict.get(FINGERPRINT)))
        return False

    def revoked(self) -> bool:
        """Whether somebody revoked it, or it is too late. What has ended, and only waits for what follows it, cannot be stopped any more."""
        named = self.id in state.revoked or (state.revoked_stamps and self.stamped_headers)
        if named and not self._already_revoked and self._goes_on_elsewhere():
            return False
        return bool(super().revoked())

    def maybe_expire(self) -> bool:
        """Whether the message came too late. What has ended, and only waits for what follows it, is never too late."""
        late = self.expires and datetime.now(UTC if self.expires.tzinfo else None) > self.expires
        if late and self._goes_on_elsewhere():
            return False
        return bool(super().maybe_expire())

    def _end_claim(self, loser: Literal["nobody", "lapsed", "itself"]) -> BeforeItsEnd | None:
        """See `Claims.end_running`. `None`: Redis does not answer."""
        generation = self._request_dict.get(GENERATION) or 0
        with suppress(RedisError), Deadline(DEATH_WITHIN):
            return self.app.claims.end_running(self.claim, self.id, generation, self.token, loser=loser)
        return None

    def _goes_on_elsewhere(self) -> bool:
        """Whether it has ended, or another delivery of it runs."""
        return self._end_claim("nobody") in ("runs", *OUTCOMES)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Record the end before Celery acknowledges the message. The claim is ended before that, so that there is no other end."""
        if not self._already_revoked:
            before = self._end_claim("itself" if terminated else "lapsed")
            if before is None:
                logger.warning(
                    "not ended yet: id=%s task=%s: Redis does not answer; it comes again", self.id, self.name
                )
            if before is None or before in ("runs", *OUTCOMES) or (terminated and before in ATTEMPT_ENDED):
                self._already_revoked = True
                self.come_again(RuntimeError("Redis does not answer" if before is None else "it ended before"))
                return
        kind = "expired" if expired else "revoked"
        if not self._already_revoked and not (
            self._chord_hears(reason)
            and self.app.refusals.message(
                self._message, RuntimeError(kind), kind, begun=self._job() if terminated else None
            )
        ):
            self._already_revoked = True
            self.come_again(RuntimeError(f"that it is {kind} cannot be recorded"))
            return
        super()._announce_revoked(reason, terminated, signum, expired)

    def _chord_hears(self, reason: str) -> bool:
        """Tell the chord of a message that ends without having run, and its chain. While its end is not recorded, they can be told again."""
        if not self.embed.get("chord") and not self.embed.get("chain"):
            return True
        try:
            with Deadline(TELL_WITHIN), self._followed():
                self.task.backend.tell_of_end(self._context, reason, store_result=False)
        except Exception as error:
            logger.exception("its chord, or its chain, is not told of its end: id=%s task=%s", self.id, self.name)
            return not may_pass(self.app, error)
        self._context.chord = self._context.chain = None  # they have heard
        return True
