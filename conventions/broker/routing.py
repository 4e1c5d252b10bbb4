"""The router: which queue the messages of a task go to."""

from collections.abc import Mapping, Sequence
from typing import Any

import celery


def route(
    app: celery.Celery,
    name: str,
    args: Any,  # noqa: ARG001  # Celery's signature
    kwargs: Any,  # noqa: ARG001  # the same
    options: Mapping[str, Any],
    **_: Any,
) -> dict[str, Any] | None:
    """Celery's router: a task goes to its `queue_name`, unless the send names another place.

    No queue is declared for a send: one in Redis needs none, and one in RabbitMQ is made when a message finds none. Celery spends a
    tenth of a send on it.
    """
    queue = getattr(app.tasks.get(name), "queue_name", None)
    if not queue or any(options.get(place) for place in ("queue", "exchange", "routing_key")):
        return None
    queues = app.amqp.queues
    if not queues.create_missing and queue not in queues:  # a worker has added it, see `load_tasks`
        queues.add(queue)
    return {"queue": queue, "declare": ()}


def routes_alike(routes: Sequence[Any] | None) -> bool:
    """Whether these routes send all messages of a task the same way: they hold no other router."""
    return all(getattr(one, "func", None) is route for one in routes or ())
