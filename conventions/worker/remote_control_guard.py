"""`RemoteCalls`: what remote control asks of a worker's consumer is checked first, and a fault of it ends no worker.

Celery does such things later, in the worker's loop, which ends with the first error.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

from celery import bootsteps

from conventions.core.value_bounds import fault_of_name

logger = logging.getLogger(__name__)

WORDS = ("exchange", "exchange_type", "routing_key")


class RemoteCalls(bootsteps.StartStopStep):
    """Checks what remote control asks of one consumer, and keeps its faults from the loop."""

    def __init__(self, consumer: Any, **options: Any) -> None:
        # Celery's commands call these three.
        super().__init__(consumer, **options)
        consumer.call_soon = functools.partial(consumer.call_soon, functools.partial(_safely, consumer))
        consumer.add_task_queue = _adding(consumer.add_task_queue)
        consumer.cancel_task_queue = _cancelling(consumer.cancel_task_queue)


def _safely(consumer: Any, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call it. Raises: errors of connections, after which the worker connects again."""
    try:
        return call(*args, **options)
    except consumer.connection_errors:
        raise
    except Exception:
        logger.exception("remote control: what was asked cannot be done, and the worker goes on")
        return None


def _adding(add: Callable[..., Any]) -> Callable[..., Any]:
    def checked(
        queue: Any, exchange: Any = None, exchange_type: Any = None, routing_key: Any = None, **options: Any
    ) -> Any:
        for name, value in zip(WORDS, (exchange, exchange_type, routing_key), strict=True):
            if value is not None:
                _check(name, value)
        return add(_check("queue", queue), exchange, exchange_type, routing_key, **options)

    return checked


def _cancelling(cancel: Callable[..., Any]) -> Callable[..., Any]:
    def checked(queue: Any) -> Any:
        return cancel(_check("queue", queue))

    return checked


def _check(name: str, value: Any) -> str:
    """Raises: ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}: it is a name, such as 'long', not {value!r}")
    if fault := fault_of_name(value):
        raise ValueError(f"{name}: the name {fault}")
    return value
