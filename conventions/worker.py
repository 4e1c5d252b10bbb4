"""What differs in the worker's main process: queues, start-up, and failures that never reach a task's own code."""

import logging
from collections.abc import Callable
from typing import Any

from celery.exceptions import TimeLimitExceeded
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.request import Request as CeleryRequest

from conventions.errors import PayloadError
from conventions.job import Job
from conventions.pipeline import end_dead

logger = logging.getLogger(__name__)

LONG_QUEUE = "long"


class Consumer(CeleryConsumer):
    """Celery's consumer without the start-up chatter between workers.

    `mingle` waits for answers of other workers before the first job; what it would share, the list of revoked
    messages, lives in Redis here.
    """

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **options: Any) -> None:
        quiet = {"without_mingle": True, "without_gossip": True}
        if LONG_QUEUE in options["app"].amqp.queues.consume_from:
            # A message taken ahead would wait for hours behind a long job.
            options["prefetch_multiplier"] = 1
            options["initial_prefetch_count"] = options["controller"].concurrency
        super().__init__(*args, worker_options=(worker_options or {}) | quiet, **options)

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Celery's handler, but that of a stopping worker gives back what still arrives.

        A signal does not wake the loop: it ends after the next message, which would wait for the running jobs here.
        """
        handle: Callable[[Any], None] = super().create_task_handler(*args, **options)

        def on_task_received(message: Any) -> None:
            if state.should_stop is None and state.should_terminate is None:
                handle(message)
            else:
                message.reject_log_error(logger, self.connection_errors, requeue=True)

        return on_task_received


class Request(CeleryRequest):
    """A delivered message. Its process was killed by the hard time limit: only the main process can say so."""

    def _arguments(self) -> dict[str, Any]:
        try:
            return dict(self.task.arguments.bind(self.args, self.kwargs))
        except (TypeError, PayloadError):
            return dict(self.kwargs)

    def on_timeout(self, soft: bool, timeout: float) -> None:  # Celery's signature
        """Record a dead letter before Celery acknowledges the message."""
        if not soft and not state.should_terminate:
            self.task.request_stack.push(self._context)
            try:
                end_dead(self.task, Job.of(self.task, self._arguments()), TimeLimitExceeded(timeout))
            except Exception:  # whatever it is, Celery must hear of the time-out
                logger.exception("the dead letter of %s is not stored", self.id)
            finally:
                self.task.request_stack.pop()
        super().on_timeout(soft, timeout)
