"""Which tasks and messages may be in a group."""

from typing import Any

import celery

from conventions.broker.header_names import GENERATION, KEY
from conventions.execution.application import Application
from conventions.worker.request import Request


def has_lane(app: Application, consumer: Any) -> bool:
    """Whether the requests of a worker go into the lane."""
    return bool(consumer.hub is not None and app.port.keeps_claims)


def goes_together(task: celery.Task, app: Application, consumer: Any) -> bool:
    """Whether jobs of a task may be in a group."""
    # With max_tasks_per_child a process counts what the pool gives it, and would count a group as one job.
    counts_jobs = consumer.controller.max_tasks_per_child
    return has_lane(app, consumer) and not counts_jobs and getattr(task, "may_be_short", False)


def may_go_together(request: Any) -> bool:
    """Whether a message may be in a group: its task is ours, it is a first attempt, and it has no callbacks."""
    if not isinstance(request, Request):
        return False
    delivery, headers = request.delivery, request.request_dict
    return bool(
        delivery
        and delivery["deliveries"] == 1
        and not delivery["alone"]
        and not request.has_follow_ups
        and not headers.get("retries")
        and not headers.get(GENERATION)
        and headers.get(KEY)
        and not request.args
        and request.type == request.task.name  # under an older name nobody would find its claim
    )
