"""A task package whose worker writes down what it sees of the pool, the consumer and the requests while a job runs."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from celery.signals import worker_ready
from celery.worker import state

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.execution.soft_time_limit import soft_limit
from conventions.library_internals import billiard, celery, celery_worker
from tests.support import wait_until

LOOK_EVERY = 0.05  # seconds


class Watched(ImmediateTask):
    """Write down what its process sees, and wait until it may end."""

    idempotent_on = EVERY_ARGUMENT
    fast_lane = False  # a group has a watch of its own for soft limits

    def run(self, folder: Path) -> None:
        """See above."""
        facts = {
            "pid": os.getpid(),
            "index": billiard.own_index(),
            "is top": celery.running_tasks.top is celery.current_task() is celery.current_worker_task(),
            "its own": celery.current_task().request.id == self.request.id,
            "soft limit is ours": signal.getsignal(signal.SIGUSR1) == soft_limit._on_signal,
            "soft limit was billiard's": soft_limit._raise is billiard.soft_limit_handler(),
            "ignored": celery.result_is_ignored(self, self.request),
            "application": celery.current_application() is self.app,
        }
        write(folder / "job", facts)
        wait_until((folder / "go").exists, timeout=60)


def write(file: Path, facts: dict[str, Any]) -> None:
    """Write it so that a reader finds all of it."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(json.dumps(facts), encoding="utf-8")
    part.rename(file)


@worker_ready.connect
def look_when_a_job_runs(sender: Any, **_: Any) -> None:
    """Look again and again, from the worker's loop."""
    folder = Path(os.environ["WATCHED_FOLDER"])

    def look() -> None:
        if (folder / "job").exists() and not (folder / "worker").exists() and state.active_requests:
            write(folder / "worker", facts_of(sender))
        sender.hub.call_later(LOOK_EVERY, look)

    look()


def facts_of(consumer: Any) -> dict[str, Any]:
    """What is seen from the main process."""
    pool, hub, controller = consumer.pool, consumer.hub, consumer.controller
    (job,) = billiard.open_jobs(pool).values()
    (request,) = state.active_requests
    processes, channel = billiard.pool_of(pool), consumer.task_consumer.channel
    return {
        "kinds": [celery_worker.has_processes(type(pool)), celery_worker.is_solo(pool), type(processes).__name__],
        "pids": billiard.pids_of(pool),
        "children": [one.pid for one in billiard.children()],
        "starts well": [processes.did_start_ok(), processes.did_start_ok.__qualname__],
        "job": {
            "pid": billiard.pid_of(job),
            "destinations": [
                billiard.destination_of(one)
                for one in (job, SimpleNamespace(_worker_pid=None, _write_to=job._write_to))
            ],
            "age": time.monotonic() - billiard.began_at(job),
            "is written": job._write_to is not None,
            "is its key": list(billiard.jobs_of(pool)) == [job._job],
            "writer": getattr(billiard._writer_of(job), "gi_frame", None) is not None,
        },
        "limit": type(billiard.HardLimits(pool).handler).__name__,
        "buffer": [len(processes.outbound_buffer), sorted(processes._all_inqueues) != []],
        "writes": callable(hub.consolidate_callback),
        "semaphore": [pool.uses_semaphore, controller.semaphore.initial_value, controller.semaphore.value],
        "controller": [
            controller.max_tasks_per_child,
            celery_worker.has_terminated(controller),
            controller.use_eventloop,
        ],
        "consumer": [
            type(consumer.task_buckets).__name__,
            consumer.disable_rate_limits,
            consumer.event_dispatcher.enabled,
            sorted(consumer.event_dispatcher.groups),
            len(consumer.on_task_message),
            consumer.initial_prefetch_count,
            consumer.prefetch_multiplier,
        ],
        "request": [
            request.id,
            request.worker_pid,
            request.time_start is not None,
            request._already_revoked,
            request._already_cancelled,
            request.acknowledged,
        ],
        "channel": [len(channel.qos._delivered), len(channel.qos._dirty), channel.connection.driver_type],
        "in poll": [channel._in_poll in (None, channel.client.connection), channel.client.connection._sock is not None],
        "poller": [channel.connection.cycle.fds != {}, type(channel.connection.cycle).__name__],
    }
