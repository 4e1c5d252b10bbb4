"""Which messages go by the lane: Celery's seat for it is `Task.Strategy`, which makes what handles each delivered message.

Celery's own strategy does its work first: revoked and expired messages, events, limits. What it would then hand to the pool
goes to the lane; some of it goes to a process together.
"""

from collections.abc import Callable
from typing import Any

from celery.worker.strategy import default

from conventions.lane import Lane
from conventions.raw_message import DELIVERY


class _Gathering:
    """A consumer whose requests go to the lane."""

    def __init__(self, consumer: Any, lane: Lane, *, together: bool) -> None:
        self._consumer, self._lane, self._together = consumer, lane, together

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def on_task_request(self, request: Any) -> None:
        request.goes_alone = not (self._together and request.may_go_together)
        self._lane.take(request)


def _has_lane(app: Any, consumer: Any) -> bool:
    return bool(consumer.hub is not None and app.settings.fast_lane and app.one_server)


def goes_together(task: Any, app: Any, consumer: Any) -> bool:
    """Whether jobs of a task may go to a process with others."""
    # A process that is replaced after so many jobs counts those that the pool gives it.
    counts_jobs = consumer.controller.max_tasks_per_child
    return _has_lane(app, consumer) and not counts_jobs and getattr(task, "may_be_short", False)


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's strategy, whose requests go by the lane."""
    lane, name, together = app.lane, task.name, goes_together(task, app, consumer)
    if together:
        lane.grouping.add(name)
    gathering = _Gathering(consumer, lane, together=together) if _has_lane(app, consumer) else consumer
    handle: Callable[..., Any] = default(task, app, gathering, **options)

    def on_message(message: Any, *args: Any, **kwargs: Any) -> None:
        is_ours = DELIVERY in (message.properties or {})
        if is_ours and (consumer.task_buckets[name] or not lane.paces.is_short(name)):
            qos = message.channel.qos
            qos.mark_slow(message.delivery_tag)
            if qos.room_for_slow < 0:  # it was read ahead because others were short
                app.in_flight.give_back(message.delivery_tag)
                qos.let_go(message.delivery_tag)
                lane.paces.narrow()
                return
        handle(message, *args, **kwargs)

    return on_message
