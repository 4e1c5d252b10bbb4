"""How a worker whose grace period is over, or that is told again, cuts off what runs: it goes back, and counts for nothing."""

import logging
import os
import signal
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from celery.worker import state
from redis.exceptions import RedisError

from conventions.broker.redis_broker import HeldMessage
from conventions.core.deadline import Deadline
from conventions.idempotency.interrupted_start import STOPPED
from conventions.library_internals.billiard import children
from conventions.metrics.worker_reports import WorkerReports
from conventions.worker.application import WorkerApplication

logger = logging.getLogger(__name__)

# Seconds that Redis has to hear that the worker leaves, to release the claims of its jobs, and to take back their messages.
LEFT_WITHIN, RELEASED_WITHIN, RETURN_WITHIN = 2.0, 2.0, 5.0
ENDED_WITHIN = 3 * (LEFT_WITHIN + RELEASED_WITHIN + RETURN_WITHIN)  # seconds that the main thread waits for that
TRIES = 100  # to count what other threads change

_has_begun = threading.Event()  # of this process, which ends then, whatever else it may have to do


def is_cut_off() -> bool:
    """Whether this process ends now, with the jobs that it runs. Another thread does what is to be done for them."""
    return _has_begun.is_set()


def wait_if_cut_off() -> None:
    """Let the thread that ends this process do so, after all that it has to do."""
    if is_cut_off():
        threading.Event().wait(ENDED_WITHIN)


def cut_off(worker: Any, status: int) -> None:
    """End what runs and this process, with this exit status, from a thread that is not the main one. Never returns.

    Args:
        worker: Celery's.
        status: of the process.
    """
    _has_begun.set()  # first, so that nobody counts the deaths as starts without an outcome
    try:
        _send_back(worker.app, worker.hostname)
    except Exception:
        logger.exception("a job that was cut off may wait for the end of its lease")
    finally:
        try:
            logging.shutdown()
            if getattr(worker, "pidlock", None):
                worker.pidlock.release()
        finally:
            os._exit(status)


def _send_back(app: WorkerApplication, hostname: str) -> None:
    """Kill, then release and return: the last steps are late, since a job in a thread goes on until this process has ended."""
    held = app.in_flight.seize()
    # Messages of RabbitMQ are in no register here: they come back as the connection ends.
    unfinished = len(held) or _number_of_unacknowledged()
    for process in children():
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    with suppress(RedisError), Deadline(LEFT_WITHIN):  # it ends in order, and nobody must think that it is silent
        WorkerReports(app.store).leave(hostname)
    _release(app, held)
    app.in_flight.give_back_seized(held, STOPPED)
    app.in_flight.flush(RETURN_WITHIN)
    logger.warning("stopped with %d jobs unfinished; their messages are back in their queues", unfinished)


def _release(app: WorkerApplication, held: Iterable[HeldMessage]) -> None:
    """Release the claims that the return of messages does not release."""
    released_then = {one.token for one in held if one.claim}
    try:
        # Pages have also those that have begun, and of which the main thread has not heard yet.
        running = app.hung_jobs.claims() | {one.token: one.claim for one in app.pages.look() if one.token}
        left = {token: claim for token, claim in running.items() if token not in released_then}
        with Deadline(RELEASED_WITHIN):
            app.claims.release_all(left, STOPPED)
    except Exception as error:  # noqa: BLE001  # whatever it is, messages are still to be returned
        logger.warning("claims are not released, and end with their leases: %s: %s", type(error).__name__, error)


def _number_of_unacknowledged() -> int:
    """How many jobs run whose messages were not acknowledged."""
    for _ in range(TRIES):
        with suppress(RuntimeError):  # another thread has begun or ended one meanwhile
            return sum(not one.acknowledged for one in state.active_requests)
    return len(state.active_requests)
