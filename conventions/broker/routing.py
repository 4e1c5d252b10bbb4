"""The router: which queue the messages of a task go to."""

from collections.abc import Mapping, Sequence
from typing import Any


def route(app: Any, name: str, args: Any, kwargs: Any, options: Mapping[str, Any], **_: Any) -> dict[str, Any] | None:  # noqa: ARG001  # Celery's signature
    """Celery's router: a task goes to its `queue_name`, unless the send names another place.

    A queue in Redis needs no declaration. Celery spends a tenth of a send on it.
    """
    queue = getattr(app.tasks.get(name), "queue_name", None)
    if not queue or any(options.get(place) for place in ("queue", "exchange", "routing_key")):
        return None
    return {"queue": queue, "declare": ()} if app.port.can.bulk else {"queue": queue}


def routes_alike(routes: Sequence[Any] | None) -> bool:
    """Whether these routes send all messages of a task the same way: they hold no other router."""
    return all(getattr(one, "func", None) is route for one in routes or ())
