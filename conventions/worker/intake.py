"""`Intake`: what becomes of the messages that a worker has read, until a process of its pool has them."""

from typing import Any, Protocol

import celery

from conventions.execution.application import Application


class Intake(Protocol):
    """One for each consumer. `DirectIntake` is the plain one; `ConventionsApp.new_intake` may make another."""

    def attach(self) -> None:
        """The consumer is connected: it has a new channel."""

    def seat(self, task: celery.Task) -> Any:
        """What takes the place of the consumer in Celery's strategy for a task: it is given each request of it."""

    def has_room(self, task: str, message: Any) -> bool:
        """Whether a message may stay in this worker; else it is on its way back to its queue."""

    def clear(self) -> None:
        """Forget what waits here: its messages go back to their queues."""

    def review(self) -> None:
        """People have paused something: return what waits here of it."""


class DirectIntake:
    """Hands each request to the pool, as Celery does.

    Args:
        consumer: the worker's.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._app: Application = consumer.app

    def attach(self) -> None:
        """Do nothing: this intake does not need the channel."""

    def seat(self, task: celery.Task) -> Any:  # noqa: ARG002  # for those that look at the task
        """Return the consumer itself, without Celery's rate limits where `RateLimits` takes their place."""
        return _Unlimited(self._consumer) if self._app.port.can.limits else self._consumer

    def has_room(self, task: str, message: Any) -> bool:  # noqa: ARG002  # the same
        """Return whether a process is free for the message. There may be fewer processes than when the message was read."""
        qos = message.channel.qos
        qos.mark_slow(message.delivery_tag)
        if qos.room_for_slow >= 0:
            return True
        self._app.in_flight.give_back(message.delivery_tag)
        qos.let_go(message.delivery_tag)
        return False

    def clear(self) -> None:
        """Do nothing: no message waits here."""

    def review(self) -> None:
        """Do nothing: what the pool has goes back when its turn comes."""


class _Unlimited:
    """A consumer whose rate limits are not Celery's."""

    disable_rate_limits = True

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)
