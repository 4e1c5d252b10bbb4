"""A delivered message as the worker's main process sees it: what it is, when it runs, how its process ended."""

import logging
import os
import signal
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import celery
from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import InvalidTaskError, TimeLimitExceeded
from celery.worker import state
from celery.worker.request import Request as CeleryRequest
from redis.exceptions import RedisError

from conventions.errors import PayloadError
from conventions.job import KEY, TOKEN, Job
from conventions.outcomes import end_dead
from conventions.reading import DELIVERY
from conventions.well_formed import fault_of

logger = logging.getLogger(__name__)


class PlainRequest(CeleryRequest):
    """A delivered message of one of Celery's own tasks."""

    token: str
    _already_revoked: bool

    def __init__(self, message: Any, *args: Any, **options: Any) -> None:
        try:
            super().__init__(message, *args, **options)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidTaskError(f"its body is not [arguments, named arguments, options]: {error}") from error
        embed = self._payload[2]
        if fault := fault_of(message.headers if options.get("headers") is None else options["headers"],
                             self._args, self._kwargs, embed):  # fmt: skip
            raise InvalidTaskError(fault)
        self.delivery = (message.properties or {}).get(DELIVERY)
        self.token = self._request_dict[TOKEN] = self.delivery["receipt"] if self.delivery else uuid4().hex
        embed = embed or {}
        self.is_followed = bool(embed.get("callbacks") or embed.get("chain") or embed.get("chord")) or (
            not self._ignore_result
        )

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """The pool has begun."""
        super().on_accepted(pid, time_accepted)
        self.begin()

    def begin(self) -> None:
        """Say that the job runs."""
        if self.delivery:
            self.app.in_flight.begin(self.delivery["receipt"], "", self.token, lambda: None)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Acknowledge or return the message of a job that failed."""
        exc = exc_info.exception
        exc = exc.exc if isinstance(exc, ExceptionWithTraceback) else exc
        if isinstance(exc, MemoryError):  # Celery would end the worker, and the message would end the next one
            exc_info.exception = RuntimeError(f"MemoryError: {exc}")
        elif not return_ok and not (self._already_revoked or self._already_cancelled):
            self.on_lost()  # nobody has settled it
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_lost(self) -> None:
        """The process of the job died: release the claim, return the message, and count the start."""
        if self.delivery:
            self.app.in_flight.give_back(self.delivery["receipt"], counted=True)


class Request(PlainRequest):
    """A delivered message of one of our tasks, as the main process sees it."""

    @property
    def claim(self) -> str:
        """The name of the job's claim."""
        key = self._request_dict.get(KEY)
        return f"{self.task.name}:{key}" if key else self._job().claim.claim

    def begin(self) -> None:
        """Say that the job runs, and what is to be done when it hangs."""
        if self.delivery:
            self.app.in_flight.begin(
                self.delivery["receipt"],
                self.claim,
                self.token,
                self._on_lapsed,
                followed_id=self.id if self.is_followed else "",
            )

    def _on_lapsed(self) -> None:
        logger.error("hung: id=%s task=%s: its lease is over; it runs again elsewhere", self.id, self.name)
        if self.worker_pid and self.worker_pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(self.worker_pid, signal.SIGKILL)
        elif self.delivery:  # a thread cannot be ended: let the message go
            self.app.in_flight.forget(self.delivery["receipt"])

    def on_lost(self) -> None:
        """As above; the claim is elsewhere than the message where the broker is."""
        if not self.app.one_server:
            with suppress(RedisError):  # then its lease ends it
                self.app.claims.release(self.claim, self.token)
        super().on_lost()

    def acknowledge(self) -> None:
        """Acknowledge; what follows the job was sent before."""
        if self.is_followed and not self.acknowledged and not self.app.one_server:
            with suppress(RedisError):  # then a message that comes again sends the same messages again
                self.app.claims.followed(self.claim, self.id)
        super().acknowledge()

    def _job(self) -> Job:
        try:
            payload = dict(self.task.arguments.bind(self.args, self.kwargs))
        except (TypeError, PayloadError):
            payload = dict(self.kwargs)
        self.task.request_stack.push(self._context)
        try:
            job = Job.of(self.task, payload)
        finally:
            self.task.request_stack.pop()
        if self.time_start:
            job.started_at = datetime.fromtimestamp(self.time_start, UTC)
        return job

    def on_timeout(self, soft: bool, timeout: float) -> None:  # Celery's signature
        """Record a dead letter before Celery acknowledges the message: the process is killed after this."""
        if not soft and not state.should_terminate:
            self.task.request_stack.push(self._context)
            try:
                end_dead(self.task, self._job(), TimeLimitExceeded(timeout), patience=0)
            except (celery.exceptions.Reject, Exception):  # whatever it is, Celery must hear of the time-out
                logger.exception("the dead letter of %s is not stored; the message comes again", self.id)
                self.on_lost()
            finally:
                self.task.request_stack.pop()
        super().on_timeout(soft, timeout)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Record the end before Celery acknowledges the message."""
        if terminated:
            with suppress(RedisError):  # then its lease ends it
                self.app.claims.release(self.claim, self.token)
        kind = "expired" if expired else "revoked"
        if not self._already_revoked and not self.app.refusals.message(self._message, RuntimeError(kind), kind):
            self._already_revoked = True
            self.on_lost()
            return
        super()._announce_revoked(reason, terminated, signum, expired)


class PlainTask(celery.Task):
    """Base of Celery's own tasks, whose messages are held like ours."""

    abstract = True
    Request = "conventions.request:PlainRequest"
