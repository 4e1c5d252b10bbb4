"""What differs in the worker's consumer: start-up, stopping, and a dead letter for each message it cannot run."""

import functools
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from celery.exceptions import InvalidTaskError, TaskRevokedError
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.request import Request
from redis.exceptions import RedisError

from conventions.broker.codec import DELIVERY, bytes_of_body
from conventions.broker.header_names import ACTOR, FINGERPRINT, OTHER_NAMES, SIGNATURE
from conventions.broker.message_form import fault_of_headers
from conventions.broker.server_checks import check_servers
from conventions.core.actor import UNSIGNED
from conventions.core.error_text import text_of
from conventions.core.errors import CannotOpen, CredentialInPayload, SignatureRefused, UndeliverableMessage, UnknownForm
from conventions.library_internals.billiard import write_waiting, written_kept
from conventions.library_internals.celery_worker import has_processes, is_solo, limit_anew
from conventions.sealing.aes_gcm import key_of
from conventions.sealing.sealed_body import is_sealed
from conventions.tasks.job_classes import long_queues
from conventions.worker.acknowledgements import Acknowledgements
from conventions.worker.application import WorkerApplication
from conventions.worker.claim_names_in_rotation import choose_name
from conventions.worker.cut_off import wait_if_cut_off
from conventions.worker.delivery_limit import fault_of_deliveries
from conventions.worker.hold_back_rate_limited import RateLimits
from conventions.worker.intake import Intake
from conventions.worker.pauses import WorkerPauses
from conventions.worker.put_off_unknown import NO_KEY, NO_PAYLOAD_KEY, UnknownTasks, unknown_task
from conventions.worker.received_credentials import refuse_received
from conventions.worker.redis_layout_step import end_worker
from conventions.worker.request import COMES_AGAIN, leave_closed
from conventions.worker.sender_check import queue_of
from conventions.worker.shutdown import end_processes, stops
from conventions.worker.unsigned_limits import refuse_beyond

logger = logging.getLogger(__name__)

EVENTS_EVERY, EVENTS_AT_ONCE = 0.2, 500  # seconds between two sends of events, and how many are sent without a wait
FLUSH_WITHIN = 5.0  # seconds that a stopping worker tries to acknowledge what has ended


class Consumer(CeleryConsumer):
    """Celery's consumer: no start-up chatter between workers, and a dead letter for each message it cannot run.

    `mingle` waits for answers of other workers before the first job, to share the list of revoked messages. Here a worker
    has heard of the revokes since its start only; `celery cancel` writes into Redis.

    Attributes:
        reads_ahead: whether it takes more messages than it has processes for.
        acknowledgements: of what has ended.
        intake: takes what it has read.
        pauses: what people have paused.
    """

    app: WorkerApplication

    _events_wait = False
    _checked = False

    def __init__(
        self,
        on_task_request: Callable[[Any], None],
        *args: Any,
        worker_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        quiet = {"without_mingle": True, "without_gossip": True}
        app, controller = options["app"], options["controller"]
        reads_ahead = options.get("prefetch_multiplier", 1) > 1 and not app.conf.worker_disable_prefetch
        takes_long = bool(long_queues(app).intersection(app.amqp.queues.consume_from))
        # A solo pool gives nothing back while a job runs, so it takes nothing ahead of a long one.
        self.reads_ahead = reads_ahead and not (takes_long and is_solo(options["pool"]))
        if takes_long:
            # A message taken ahead would wait for hours behind a long job.
            processes = controller.max_concurrency or controller.concurrency
            options["prefetch_multiplier"] = 1
            options["initial_prefetch_count"] = 1 if is_solo(options["pool"]) else processes
        self._process = on_task_request
        super().__init__(self._process_safely, *args, worker_options=(worker_options or {}) | quiet, **options)
        self._unknown = UnknownTasks(self)
        self.intake: Intake = app.new_intake(self)
        self.pauses = WorkerPauses(self)
        self.acknowledgements = Acknowledgements(app.loop_calls)

    def call_soon_ack(self, p: Any, *args: Any, **kwargs: Any) -> Any:
        """Acknowledge in the next turn of the loop; or at the end, if no turn comes any more."""
        if self.hub is None or self.acknowledgements.by_celery:
            return super().call_soon_ack(p, *args, **kwargs)
        call = functools.partial(p, *args, **kwargs)
        self.acknowledgements.soon(call, self.hub)
        return call

    @functools.cached_property
    def rate_limits(self) -> RateLimits:
        """What holds back the jobs of tasks that have a rate limit."""
        return RateLimits(self)

    def reset_rate_limits(self) -> None:
        """Read the limits of all tasks anew, as `control rate_limit` asks for."""
        before = dict(self.task_buckets)
        super().reset_rate_limits()
        if "rate_limits" in vars(self):  # not at the first time
            self.rate_limits.change(before)
            return
        for name, bucket in before.items():  # of a broker with which Celery holds jobs back
            if bucket:
                limit_anew(self, bucket, self.task_buckets[name])

    def connect(self) -> Any:
        """Connect to the broker. Raises: SystemExit in production, where the servers would lose jobs."""
        connection = super().connect()
        if not self._checked and self.app.settings.environment == "production":
            check_servers(self.app.port, self.app.store)
        self._checked = True
        self.pauses.connect()
        return connection

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Celery's handler, which one bad message cannot end; a stopping worker gives back what still arrives."""
        handle: Callable[[Any], None] = super().create_task_handler(*args, **options)
        self.acknowledgements.do_all()  # the turn of the loop that was asked for has gone with the connection before
        channel = self.task_consumer.channel
        if hasattr(channel, "in_flight"):
            self.intake.attach()
            self.rate_limits.attach()
            self.pauses.attach()
            channel.on_newer = end_worker
            channel.qos.most_bytes = self.app.settings.read_ahead_limit
            channel.qos.ahead, channel.long_queues = self.prefetch_multiplier, long_queues(self.app)
        elif hasattr(channel, "ahead"):
            channel.ahead.none_may_wait = is_solo(self.pool)

        def on_task_received(message: Any) -> None:
            delivery = (message.properties or {}).get(DELIVERY)
            if stops():
                self._give_back(message)
            else:
                try:
                    if not self._is_believed(message):
                        return  # its fate is decided
                    if fault := fault_of_deliveries(delivery):
                        self.refuse(message, fault)
                        return
                    if not self._is_named(message):
                        return
                    handle(message)
                except Exception as error:  # whatever it is, it must neither end the worker nor loop
                    logger.exception("a message cannot be handled")
                    self.refuse(message, UndeliverableMessage(f"{type(error).__name__}: {error}"))
                else:
                    self.write_to_pool()

        return on_task_received

    def _is_believed(self, message: Any) -> bool:
        """Whether somebody with the keys has sent a message, or it may come without. If not, it is refused here, or waits for a worker with its key."""
        check, body = self.app.sender_check, bytes_of_body(message.body)
        headers = message.headers = message.headers or {}
        if is_sealed(message.content_type):
            leave_closed(message)
            if self.app.payload_keys is None or key_of(body) not in self.app.payload_keys:
                return self._is_put_off(message)
        try:
            if check is None:
                refuse_received(self.app, headers, body)
                return True
            if (
                "task" in headers
                and not check.signatures.knows_key_of(headers)
                and self._unknown.returned(message, NO_KEY)
            ):
                return False
            message.headers = check.looked_at(message, body)
            if message.headers.get(FINGERPRINT) is None:  # its sender knew the name of the task alone
                refuse_received(self.app, message.headers, body)
            if message.headers.get(ACTOR) == UNSIGNED and not message.headers.get(SIGNATURE):
                refuse_beyond(self.app, message.headers, body, queue_of(message))
        except (SignatureRefused, CredentialInPayload) as fault:
            self.refuse(message, fault)
            return False
        return True

    def _is_put_off(self, message: Any) -> Literal[False]:
        """Let a message wait for a worker that can open it; in the end it is a dead letter, and stays sealed."""
        if not ("task" in message.headers and self._unknown.returned(message, NO_PAYLOAD_KEY)):
            name = key_of(bytes_of_body(message.body))
            self.refuse(message, CannotOpen(f"it is sealed with the key {name!r}, which no worker had that got it"))
        return False

    def _is_named(self, message: Any) -> bool:
        """Whether it is known which claim a message means. If not, it is on its way back."""
        if not message.headers.get(OTHER_NAMES):
            return True
        try:
            choose_name(self.app, message)
        except RedisError:
            self._give_back(message)
            return False
        return True

    def _process_safely(self, request: Any) -> None:
        """Give a request to the pool: now, or when a process is free."""
        self._process(
            _Guarded(request, self) if isinstance(request, Request) else request
        )  # a lane guards what it gives

    def end_unready(self, request: Any, error: Exception) -> None:
        """A request that cannot be given to the pool is a dead letter."""
        logger.error("a message cannot be handled: %s", request.id, exc_info=error)
        self.refuse(request.message, UndeliverableMessage(f"{type(error).__name__}: {error}"))
        state.task_ready(request)

    def write_to_pool(self) -> None:
        """Write to the processes what the pool has for them."""
        # Celery would do it in the next turn of its loop, after the next read of the queues and one more poll.
        try:
            write_waiting(self.pool, self.hub)
        except Exception:  # the message is in the pool, which finds a dead process by itself
            logger.exception("a job cannot be written to its process now")

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

    def refuse(self, message: Any, error: Exception) -> bool:
        """Store a dead letter and acknowledge; where it cannot be stored, the message comes again."""
        if self.app.refusals.message(message, error):
            message.ack_log_error(logger, self.connection_errors)
            return True
        give_back = functools.partial(message.reject_log_error, logger, self.connection_errors, requeue=True)
        if DELIVERY in (message.properties or {}):  # in Redis it waits for a second
            give_back()
        else:
            self.app.loop_calls.later(COMES_AGAIN, give_back)
        return False

    def _is_ours(self, message: Any) -> bool:  # not one of remote control
        return DELIVERY in (message.properties or {}) or self.connection.transport.driver_type != "redis"

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """A message without the headers of a task."""
        if self.refuse(message, UndeliverableMessage("it names no task")):
            super().on_unknown_message(body, _Acknowledged(message))

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A message for a task that is not registered: it waits, unless no worker could ever run it."""
        if fault := fault_of_headers(message.headers, message.properties):
            self.on_invalid_task(body, message, InvalidTaskError(fault))
            return
        if self._unknown.returned(message):
            return
        if self.refuse(message, unknown_task(self.app, message.headers["task"])):
            super().on_unknown_task(body, _Acknowledged(message), exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A message whose body is not that of a task."""
        if self.refuse(message, UndeliverableMessage(str(exc))):
            super().on_invalid_task(body, _Acknowledged(message), exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """A message whose body cannot be decoded, or is not to be."""
        if isinstance(exc, UnknownForm):
            logger.error("left in its queue: a message cannot be read: %s", exc)
            self._unknown.leave(message)
            return
        if isinstance(exc, UndeliverableMessage) and self._is_ours(message):  # Celery would log its body
            self.refuse(message, exc)
            return
        if not self._is_ours(message) or self.refuse(message, UndeliverableMessage(f"{type(exc).__name__}: {exc}")):
            # Celery logs all of the error, and some have the whole body in them.
            super().on_decode_error(_Acknowledged(message), UndeliverableMessage(text_of(exc)))

    def on_close(self) -> None:
        """The connection is made anew: Celery drops what has not started, so it goes back to its queue."""
        with written_kept(self.pool):
            super().on_close()
        self.intake.clear()
        self.app.in_flight.give_back_unstarted()

    def stop(self) -> None:
        """Stop consuming, and return what has not started."""
        self.pauses.stop()
        super().stop()
        if self.hub is not None:
            self.acknowledgements.leave_loop(by_celery=has_processes(type(self.pool)), beat=self._beat)
        self.intake.clear()
        if returned := self.app.in_flight.give_back_unstarted():
            logger.info("returned %d messages that had not started", returned)
        end_processes(self.pool)

    def _beat(self) -> None:
        if (connection := self.connection) is not None and connection.connected:  # else this would open it anew
            with suppress(
                *self.connection_errors
            ):  # it also says that RabbitMQ was not heard of: nobody reads any more
                connection.heartbeat_check(self.amqheartbeat_rate)

    def shutdown(self) -> None:
        """End, after the last acknowledgement is through."""
        wait_if_cut_off()
        self.acknowledgements.end()  # before the connection is closed
        super().shutdown()
        self.acknowledgements.do_all()
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


class _Guarded:
    """A request on its way to the pool. Its error does not end the worker, nor does it reach the message in whose turn it came."""

    def __init__(self, request: Request, consumer: Consumer) -> None:
        self._request, self._consumer = request, consumer

    def execute_using_pool(self, pool: Any, **options: Any) -> Any:
        """Give it to the pool. Raises: TaskRevokedError, by which Celery knows that the process is still free."""
        try:
            if self._consumer.pauses.returns(self._request):
                raise TaskRevokedError  # noqa: TRY301  # one seat for all errors
            return self._request.execute_using_pool(pool, **options)
        except TaskRevokedError:
            raise
        except Exception as error:
            self._consumer.end_unready(self._request, error)
            raise TaskRevokedError from error
