"""What differs in the worker's main process: start-up, and messages that end without their task's own code."""

import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import celery
from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import InvalidTaskError, TimeLimitExceeded
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.request import Request as CeleryRequest
from redis.exceptions import RedisError

from conventions.errors import PayloadError, UndeliverableMessage, UnknownTask
from conventions.job import KEY, TOKEN, Job
from conventions.outcomes import end_dead
from conventions.reading import DELIVERY
from conventions.well_formed import fault_of

logger = logging.getLogger(__name__)

LONG_QUEUE = "long"
DELIVERY_LIMIT = 20  # deliveries without a start: the message ends its worker before there is a claim
EVENTS_EVERY, EVENTS_AT_ONCE = 0.2, 500  # seconds between two sends of events, and how many are sent without a wait
FLUSH_WITHIN = 5.0  # seconds that a stopping worker tries to acknowledge what has ended


class Consumer(CeleryConsumer):
    """Celery's consumer: no start-up chatter between workers, and a dead letter for each message it cannot run.

    `mingle` waits for answers of other workers before the first job; what it would share, the list of revoked
    messages, lives in Redis here.
    """

    _events_wait = False

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **options: Any) -> None:
        quiet = {"without_mingle": True, "without_gossip": True}
        if LONG_QUEUE in options["app"].amqp.queues.consume_from:
            # A message taken ahead would wait for hours behind a long job.
            options["prefetch_multiplier"] = 1
            options["initial_prefetch_count"] = options["controller"].concurrency
        super().__init__(*args, worker_options=(worker_options or {}) | quiet, **options)

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Celery's handler, which one bad message cannot end; a stopping worker gives back what still arrives."""
        handle: Callable[[Any], None] = super().create_task_handler(*args, **options)
        if self.prefetch_multiplier > 1 and hasattr(self.task_consumer.channel, "in_flight"):
            self.task_consumer.channel.qos.low_water = self.initial_prefetch_count // 2

        def on_task_received(message: Any) -> None:
            delivery = (message.properties or {}).get(DELIVERY)
            if state.should_stop is not None or state.should_terminate is not None:
                self._give_back(message)
            elif delivery and delivery["deliveries"] > DELIVERY_LIMIT:
                self._refuse(
                    message,
                    UndeliverableMessage(
                        f"delivered {delivery['deliveries']} times, and each time its worker ended before the job began"
                    ),
                )
            else:
                try:
                    handle(message)
                except Exception as error:  # whatever it is, it must neither end the worker nor loop
                    logger.exception("a message cannot be handled")
                    self._refuse(message, UndeliverableMessage(f"{type(error).__name__}: {error}"))

        return on_task_received

    def on_send_event_buffered(self) -> None:
        """Send events a few times a second, together: Celery sends them after each turn of its loop, twice for a job."""
        if self.hub and not self._events_wait:
            self._events_wait = True
            self.event_dispatcher.buffer_limit = EVENTS_AT_ONCE
            self.hub.call_later(EVENTS_EVERY, self._send_events)

    def _send_events(self) -> None:
        self._events_wait = False
        self._flush_events()

    def _give_back(self, message: Any) -> None:
        if DELIVERY in (message.properties or {}):
            self.app.in_flight.give_back(message.delivery_tag)
        else:
            message.reject_log_error(logger, self.connection_errors, requeue=True)

    def _refuse(self, message: Any, error: Exception) -> bool:
        """Store a dead letter and acknowledge; where it cannot be stored, the message comes again."""
        if self.app.refusals.message(message, error):
            message.ack_log_error(logger, self.connection_errors)
            return True
        message.reject_log_error(logger, self.connection_errors, requeue=True)
        return False

    def _is_ours(self, message: Any) -> bool:  # not one of remote control
        return DELIVERY in (message.properties or {}) or self.connection.transport.driver_type != "redis"

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """A message without the headers of a task."""
        if self._refuse(message, UndeliverableMessage("it names no task")):
            super().on_unknown_message(body, _Acknowledged(message))

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A message for a task that is not registered."""
        error = UnknownTask(f"no task {message.headers['task']!r} is registered; deploy it, or list it in `aliases`")
        if self._refuse(message, error):
            super().on_unknown_task(body, _Acknowledged(message), exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A message whose body is not that of a task."""
        if self._refuse(message, UndeliverableMessage(str(exc))):
            super().on_invalid_task(body, _Acknowledged(message), exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """A message whose body cannot be decoded."""
        if not self._is_ours(message) or self._refuse(message, UndeliverableMessage(f"{type(exc).__name__}: {exc}")):
            super().on_decode_error(_Acknowledged(message), exc)

    def on_close(self) -> None:
        """The connection is made anew: Celery drops what has not started, so it goes back to its queue."""
        super().on_close()
        self.app.in_flight.give_back_unstarted()

    def stop(self) -> None:
        """Stop consuming, and return what has not started."""
        super().stop()
        if returned := self.app.in_flight.give_back_unstarted():
            logger.info("returned %d messages that had not started", returned)

    def shutdown(self) -> None:
        """End, after the last acknowledgement is through."""
        super().shutdown()
        if not self.app.in_flight.flush(FLUSH_WITHIN):
            logger.warning("Redis did not take every acknowledgement; those messages come again and find their outcome")


class _Acknowledged:
    """A message whose fate is decided: Celery's handlers may read it, and settle nothing."""

    def __init__(self, message: Any) -> None:
        self._message = message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    def ack(self, *_: Any, **__: Any) -> None:
        """Done already."""

    reject_log_error = ack_log_error = reject = ack


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
    Request = "conventions.worker:PlainRequest"
