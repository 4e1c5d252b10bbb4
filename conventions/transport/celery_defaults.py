"""Celery's settings as this platform sets them, each with its reason."""

from typing import Any

from conventions.core.lease_timings import DEFAULT_LEASE
from conventions.core.priority import Priority
from conventions.core.redis_address import RedisAddress
from conventions.core.settings import is_redis
from conventions.execution.application import Application
from conventions.execution.claim_horizon import REDRIVE_WINDOW
from conventions.transport import redis_transport as transport

CLASS_QUEUES = ("immediate", "scheduled", "long")


RESULT_BACKENDS = {
    **dict.fromkeys(("redis", "rediss", "socket"), "conventions.jobs.result_backend:Backend"),
    "sentinel": "conventions.jobs.result_backend:SentinelResults",
}


def celery_defaults(app: Application) -> dict[str, Any]:
    """The configuration of an application, in Celery's names."""
    settings, broker_address = app.settings, app.broker_address
    redis = RedisAddress.parse(settings.redis_url or broker_address)
    values: dict[str, Any] = {
        "result_backend": redis.celery_url,
        # What a task is by default (`task_acks_late`, `task_ignore_result`, ...) is Celery's: it is for functions. Our classes say it themselves.
        # One job that waits behind a long one is one too many; the worker lowers this to 1 where it consumes `long`.
        "worker_prefetch_multiplier": 4,
        "worker_concurrency": settings.concurrency,
        # Never pickle: a message must not be able to run code of its own.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ("json",),
        "enable_utc": True,  # what is stored is UTC;
        "timezone": settings.timezone,  # what people read and schedules mean is local
        "worker_send_task_events": False,  # nobody may be looking; Flower turns them on as long as it runs
        "task_send_sent_event": False,  # it would cost a message for each message
        "result_expires": settings.result_expires,
        # A part may be due after `max_delay`: a chord that is forgotten by then would never end.
        "result_chord_expires": max(
            settings.result_expires, settings.keep_result_for, settings.max_delay + REDRIVE_WINDOW
        ).total_seconds(),
        "task_default_queue": CLASS_QUEUES[0],
        "task_default_priority": int(Priority.NORMAL),
        "task_queue_max_priority": int(Priority.URGENT),
        "worker_consumer": "conventions.worker.consumer:Consumer",
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,  # print of a job is not a log line
        "broker_connection_retry_on_startup": True,  # a worker may start before its broker
        "broker_connection_max_retries": None,  # and outlives its outage: one that gave up would serve nobody
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "beat_scheduler": "conventions.schedules.scheduler:Scheduler",
        # With RedBeat's own values a standby beat would take over after half an hour.
        "beat_max_loop_interval": 5,
        "redbeat_lock_timeout": app.timings.beat_lock,
    }
    return values | redis.result_options | redis.redbeat_settings | _broker(app, broker_address)


def _broker(app: Application, address: str) -> dict[str, Any]:
    if is_redis(address):
        broker = RedisAddress.parse(address)
        options = transport.options(app) | broker.broker_options
        return {"broker_url": broker.celery_url, "broker_transport_options": options}
    options = {"link": transport.Link(app), **transport.FAIL_FAST}
    return {
        "broker_url": address,
        "broker_transport_options": options,
        # Seconds of silence after which RabbitMQ takes back what a worker holds that stands still: the lease, in two steps.
        "broker_heartbeat": round(min(app.timings.lease, DEFAULT_LEASE) / 2),
        "worker_enable_prefetch_count_reduction": False,  # its queues count for each consumer, from the beginning
    }


def queue_names(app: Application) -> list[str]:
    """The class queues, every `queue_name` of the registered tasks, and the queues that plain Celery would consume: for functions."""
    of_tasks = [task for task in app.tasks.values() if hasattr(task, "queue_name")]
    own = {name for task in of_tasks for name in (task.queue_name, *getattr(task, "further_queues", ()))}
    celerys = {getattr(one, "name", one) for one in app.conf.task_queues or (app.conf.task_default_queue,)}
    return [*CLASS_QUEUES, *sorted((own | celerys).difference(CLASS_QUEUES))]
