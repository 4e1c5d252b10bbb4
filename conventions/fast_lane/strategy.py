"""Which messages go by the lane: Celery's seat for it is `Task.Strategy`, which makes what handles each delivered message.

Celery's own strategy does its work first: revoked and expired messages, events, limits. What it would then hand to the pool
goes to the lane; some of it goes to a process together.
"""

from collections.abc import Callable
from typing import Any

from conventions.broker.codec import DELIVERY
from conventions.fast_lane.lane import Lane
from conventions.library_internals.celery_worker import default_strategy


class _Gathering:
    """A consumer whose requests go to the lane."""

    def __init__(self, consumer: Any, lane: Lane, *, together: bool) -> None:
        self._consumer, self._lane, self._together = consumer, lane, together

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    disable_rate_limits = True  # see `RateLimits`: Celery's keep the room of other messages

    def on_task_request(self, request: Any) -> None:
        request.goes_alone = not (self._together and request.may_go_together)
        self._lane.take(request)


class _Unlimited:
    """A consumer whose rate limits are not Celery's."""

    disable_rate_limits = True

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


def _has_lane(app: Any, consumer: Any) -> bool:
    return bool(consumer.hub is not None and app.settings.fast_lane and app.one_server)


def goes_together(task: Any, app: Any, consumer: Any) -> bool:
    """Whether jobs of a task may go to a process with others."""
    # A process that is replaced after so many jobs counts those that the pool gives it.
    counts_jobs = consumer.controller.max_tasks_per_child
    return _has_lane(app, consumer) and not counts_jobs and getattr(task, "may_be_short", False)


def _has_room(message: Any, app: Any) -> bool:
    """Whether one more of those that may take long has room here; else it goes back: it was read ahead because others were short."""
    qos = message.channel.qos
    qos.mark_slow(message.delivery_tag)
    if qos.room_for_slow >= 0:
        return True
    app.in_flight.give_back(message.delivery_tag)
    qos.let_go(message.delivery_tag)
    app.lane.paces.narrow()
    return False


def _seat(task: Any, app: Any, consumer: Any) -> Any:
    """What takes the place of the consumer in Celery's strategy."""
    together = goes_together(task, app, consumer)
    if together:
        app.lane.grouping.add(task.name)
    if _has_lane(app, consumer):
        return _Gathering(consumer, app.lane, together=together)
    return _Unlimited(consumer) if app.broker_is_redis else consumer


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's strategy, whose requests go by the lane."""
    lane, name = app.lane, task.name
    handle: Callable[..., Any] = default_strategy(task, app, _seat(task, app, consumer), **options)

    def on_message(message: Any, *args: Any, **kwargs: Any) -> None:
        if DELIVERY not in (message.properties or {}):
            handle(message, *args, **kwargs)
            return
        is_short = lane.paces.is_short(name)
        if not (is_short or _has_room(message, app)):
            return

        def run() -> None:
            if not is_short:
                message.channel.qos.mark_slow(message.delivery_tag)
            handle(message, *args, **kwargs)

        limited = consumer.task_buckets[name] and not consumer.disable_rate_limits
        if not limited or consumer.rate_limits.admits(name, message, run):
            handle(message, *args, **kwargs)

    return on_message
