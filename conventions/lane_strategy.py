"""Which messages go by the lane: Celery's seat for it is `Task.Strategy`, which makes what handles each delivered message.

Celery's own strategy does its work first: revoked and expired messages, events, limits.
"""

from collections.abc import Callable
from typing import Any

from celery.worker.strategy import default

from conventions.lane import Lane
from conventions.reading import DELIVERY


class _Gathering:
    """A consumer whose requests go to the lane."""

    def __init__(self, consumer: Any, lane: Lane) -> None:
        self._consumer = consumer
        self.on_task_request = lane.take

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


def goes_by_lane(task: Any, app: Any, consumer: Any) -> bool:
    """Whether jobs of a task may go to a process with others."""
    # A process that is replaced after so many jobs counts those that the pool gives it.
    counts_jobs = consumer.controller.max_tasks_per_child
    return bool(
        consumer.hub is not None and not counts_jobs and task.may_be_short and app.settings.fast_lane and app.one_server
    )


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's strategy, whose requests go by the lane."""
    lane, name = app.lane, task.name
    by_lane = goes_by_lane(task, app, consumer)
    handle = default(task, app, _Gathering(consumer, lane) if by_lane else consumer, **options)

    def on_message(message: Any, *args: Any, **kwargs: Any) -> None:
        if DELIVERY in (message.properties or {}) and not lane.paces.is_short(name):
            qos = message.channel.qos
            qos.mark_slow(message.delivery_tag)
            if qos.room_for_slow < 0:  # it was read ahead because others were short
                app.in_flight.give_back(message.delivery_tag)
                qos.let_go(message.delivery_tag)
                lane.paces.narrow()
                return
        handle(message, *args, **kwargs)

    return on_message
