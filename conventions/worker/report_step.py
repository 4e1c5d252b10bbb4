"""A worker says of itself, every two seconds, what it is and what it runs."""

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from celery import bootsteps
from celery.signals import worker_shutdown
from celery.worker import state
from redis.exceptions import RedisError

from conventions.broker.delivery_names import DeliveryNames
from conventions.core.background_rounds import Rounds
from conventions.execution.process_ends import has_ended
from conventions.metrics.worker_reports import (
    MOST_RUNNING,
    SAY_EVERY,
    TIDY_EVERY,
    RunningJob,
    WorkerReport,
    WorkerReports,
)
from conventions.worker.application import WorkerApplication

logger = logging.getLogger(__name__)

SAY_FIRST = 0.5  # seconds


class ReportStep(bootsteps.StartStopStep):
    """A thread of the worker's main process."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        self._worker, self._app = worker, worker.app
        self._started = time.time()
        self._tidies_at = 0.0
        self._has_said = False
        fault = "others are not told what this worker does"
        self._rounds = Rounds("report", self._say, self._wait, fault=fault, logger=logger)
        super().__init__(worker, **options)

    def start(self, worker: Any) -> None:
        """Begin. It goes on while the worker stops: its jobs still run."""
        worker_shutdown.connect(self._leave, sender=worker)
        self._rounds.start()

    def terminate(self, worker: Any) -> None:  # noqa: ARG002  # Celery's signature
        """A worker in a thread, as in a test, is terminated and says nothing of it."""
        if threading.current_thread() is not threading.main_thread():
            self._leave()

    def _leave(self, **_: Any) -> None:
        self._rounds.stop(within=SAY_EVERY)
        with suppress(RedisError):
            WorkerReports(self._app.store).leave(self._worker.hostname)

    def _wait(self) -> float:
        """Seconds until the next report; the first one comes once it consumes."""
        return SAY_EVERY if self._has_said else SAY_FIRST

    def _say(self) -> None:
        now, self._has_said = time.monotonic(), True
        tidy = now >= self._tidies_at
        DeliveryNames(self._app.claims.store).say(self._worker.hostname, self._app.release)
        WorkerReports(self._app.store).say(self._worker.hostname, self._report(), tidy=tidy)
        if tidy:
            self._tidies_at = now + TIDY_EVERY

    def _report(self) -> WorkerReport:
        worker, app = self._worker, self._app
        running = list(_running(app))
        pauses = getattr(worker.consumer, "pauses", None)
        stops = state.should_stop is not None or state.should_terminate is not None
        return WorkerReport(
            release=app.release,
            pool=type(worker.pool).__module__.rpartition(".")[2],
            processes=_processes(worker.pool),
            queues=() if stops else tuple(sorted(_queues(worker.consumer))),
            running=tuple(sorted(running, key=lambda one: one.since)[:MOST_RUNNING]),
            busy=dict(Counter(one.task for one in running)),
            held=max(0, app.in_flight.count() - len(running)),
            stops=stops,
            started=self._started,
            paused=() if pauses is None else tuple(sorted(pauses.left)),
            pauses=0 if pauses is None else pauses.revision,
            host=socket.gethostname(),
            pid=os.getpid(),
        )


def _processes(pool: Any) -> int:
    """How many jobs it runs at once; none before it has begun, and once it has ended: this thread lives longer."""
    try:
        return int(pool.num_processes)
    except AttributeError:  # Celery's pool has none of billiard then
        return 0


def _queues(consumer: Any) -> list[str]:
    """The queues that a worker consumes now; none while it connects."""
    task_consumer = getattr(consumer, "task_consumer", None)
    if task_consumer is None or getattr(task_consumer, "channel", None) is None:
        return []
    with suppress(RuntimeError):  # one is added or cancelled just now; the next report is soon
        return [queue.name for queue in task_consumer.queues]
    return []


def _running(app: WorkerApplication) -> Iterator[RunningJob]:
    """What runs here: jobs in processes by their pages, jobs in threads by their leases, and functions by their requests."""
    claims = set()
    for look in app.pages.look():
        if look.token and not look.settles_since and not has_ended(look.process):
            claims.add(look.claim)
            yield _of_claim(app, look.claim, look.token)
    for request in app.lease_keeper.held():
        if request.claim not in claims:
            claims.add(request.claim)
            yield _of_claim(app, request.claim, request.token, request.message_id)
    with suppress(RuntimeError):  # a thread of the pool begins a job just now
        for request in list(state.active_requests):
            if request.time_start and not hasattr(request.task, "arguments"):  # a job has a claim
                yield RunningJob(
                    task=request.name,
                    id=request.id,
                    queue=str((request.delivery_info or {}).get("routing_key") or ""),
                    since=request.time_start,
                )


def _of_claim(app: WorkerApplication, claim: str, token: str, message_id: str = "") -> RunningJob:
    held = app.in_flight.get(token)
    return RunningJob(task=claim.partition(":")[0], queue=held.queue if held else "", id=message_id, claim=claim)
