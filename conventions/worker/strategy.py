"""What handles each delivered message of a task: Celery's seat for it is `Task.Strategy`.

Celery's own strategy does its work: revoked and expired messages, events, countdowns. Rate limits and pauses are looked at before it, and what
it would hand to the pool goes to the consumer's `Intake`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import celery

from conventions.broker.codec import DELIVERY
from conventions.library_internals.celery_worker import default_strategy
from conventions.worker.application import WorkerApplication


def strategy(task: celery.Task, app: WorkerApplication, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's strategy, with our rate limits and pauses."""
    intake, name = consumer.intake, task.name
    handle: Callable[..., Any] = default_strategy(task, app, intake.seat(task), **options)

    def on_message(message: Any, *args: Any, **kwargs: Any) -> None:
        if DELIVERY not in (message.properties or {}):
            if not consumer.pauses.holds_back(name, message):
                handle(message, *args, **kwargs)
            return
        if consumer.pauses.holds_back(name, message):
            return
        if not intake.has_room(name, message):
            return
        limited = consumer.task_buckets[name] and not consumer.disable_rate_limits
        if not limited or consumer.rate_limits.admits(name, message, partial(handle, message, *args, **kwargs)):
            handle(message, *args, **kwargs)

    return on_message
