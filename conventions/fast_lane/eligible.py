"""Which tasks and messages may go to a process with others."""

from typing import Any

from conventions.broker.header_names import GENERATION, KEY
from conventions.worker.request import Request


def has_lane(app: Any, consumer: Any) -> bool:
    """Whether a worker's requests go by the lane."""
    return bool(consumer.hub is not None and app.one_server)


def goes_together(task: Any, app: Any, consumer: Any) -> bool:
    """Whether jobs of a task may go to a process with others."""
    # A process that is replaced after so many jobs counts those that the pool gives it.
    counts_jobs = consumer.controller.max_tasks_per_child
    return has_lane(app, consumer) and not counts_jobs and getattr(task, "may_be_short", False)


def may_go_together(request: Any) -> bool:
    """Whether a process may have it with others: it is of one of our tasks, was never tried, and nothing follows it."""
    if not isinstance(request, Request):
        return False
    delivery, headers = request.delivery, request.request_dict
    return bool(
        delivery
        and delivery["deliveries"] == 1
        and not delivery["alone"]
        and not request.is_followed
        and not headers.get("retries")
        and not headers.get(GENERATION)
        and headers.get(KEY)
        and not request.args
        and request.type == request.task.name  # by its old name nobody would find its claim
    )
