"""Celery's settings as this platform sets them, each with its reason, and the router that reads `queue_name`."""

from typing import Any
from urllib.parse import urlsplit

from conventions import transport
from conventions.priority import Priority
from conventions.settings import REDIS_SCHEMES, Settings
from conventions.store import SOCKET_TIMEOUT

CLASS_QUEUES = ("immediate", "scheduled", "long")


def celery_defaults(settings: Settings, broker_address: str) -> dict[str, Any]:
    """The configuration of an application, in Celery's names."""
    results = settings.redis_url or broker_address
    values: dict[str, Any] = {
        "broker_url": kombu_url(broker_address),
        "result_backend": _result_url(results),
        # A job is acknowledged after its outcome, and runs again when its worker dies.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # One job that waits behind a long one is one too many; the worker lowers this to 1 where it consumes `long`.
        "worker_prefetch_multiplier": 4,
        "worker_concurrency": settings.concurrency,
        # Never pickle: a message must not be able to run code of its own.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "enable_utc": True,  # what is stored is UTC;
        "timezone": settings.timezone,  # what people read and schedules mean is local
        "worker_send_task_events": True,  # for Flower
        "task_send_sent_event": False,  # it would cost a message for each message
        "task_ignore_result": True,  # a result that nobody reads is work and memory for nothing
        "result_expires": settings.result_expires,
        "task_default_queue": CLASS_QUEUES[0],
        "task_default_priority": int(Priority.NORMAL),
        "task_queue_max_priority": int(Priority.URGENT),
        "worker_consumer": "conventions.worker:Consumer",
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,  # print of a job is not a log line
        "broker_connection_retry_on_startup": True,  # a worker may start before its broker
        "broker_connection_max_retries": None,  # and outlives its outage: one that gave up would serve nobody
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "beat_scheduler": "conventions.beat:Scheduler",
        # With RedBeat's own values a standby beat would take over after half an hour.
        "beat_max_loop_interval": 5,
        "redbeat_lock_timeout": 30,
    }
    return values | _result_options(values["result_backend"]) | _transport_options(settings, broker_address)


def _result_url(address: str) -> str:
    """A Redis address as Celery's result backend writes it."""
    parts = urlsplit(kombu_url(address))
    scheme = {"valkey": "redis", "valkeys": "rediss"}.get(parts.scheme, parts.scheme)
    query = parts.query
    if scheme == "rediss" and "ssl_cert_reqs" not in query:
        query = f"{query}&ssl_cert_reqs=required".lstrip("&")  # the backend refuses to start without
    return (
        parts._replace(scheme=scheme, query=query).geturl()
        if scheme != parts.scheme or query != parts.query
        else kombu_url(address)
    )


def _result_options(address: str) -> dict[str, Any]:
    if urlsplit(address).scheme == "redis+socket":  # a local socket cannot go silent
        return {}
    return {
        "redis_socket_timeout": SOCKET_TIMEOUT,
        "redis_socket_connect_timeout": SOCKET_TIMEOUT,
        "redis_socket_keepalive": True,
    }


def _transport_options(settings: Settings, address: str) -> dict[str, Any]:
    if urlsplit(address).scheme in REDIS_SCHEMES:
        return {"broker_transport_options": transport.options(settings.key_prefix)}
    # RabbitMQ says so when it took a message.
    return {"broker_transport_options": {"confirm_publish": True, **transport.FAIL_FAST}}


def kombu_url(address: str) -> str:
    """A Redis address as kombu writes it; others unchanged.

    >>> kombu_url("unix:///run/valkey.sock?db=1")
    'redis+socket:///run/valkey.sock?virtual_host=1'
    """
    if not address.startswith("unix:"):
        return address
    return address.replace("unix:", "redis+socket:", 1).replace("?db=", "?virtual_host=")


def queue_names(app: Any) -> list[str]:
    """The class queues and every `queue_name` of the registered tasks."""
    own = {task.queue_name for task in app.tasks.values() if hasattr(task, "queue_name")}
    return [*CLASS_QUEUES, *sorted(own.difference(CLASS_QUEUES))]


def route(app: Any, name: str, *_: Any, **__: Any) -> dict[str, Any] | None:
    """Celery's router: a task goes to its `queue_name`."""
    task = app.tasks.get(name)
    queue = getattr(task, "queue_name", None)
    return {"queue": queue, "routing_key": queue} if queue else None
