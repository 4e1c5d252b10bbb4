"""How the messages of a task find their queue."""

from collections.abc import Mapping, Sequence
from typing import Any


def route(app: Any, name: str, args: Any, kwargs: Any, options: Mapping[str, Any], **_: Any) -> dict[str, Any] | None:  # noqa: ARG001  # Celery's signature
    """Celery's router: a task goes to its `queue_name`, unless the send says where.

    In Redis a queue needs no declaration, which takes Celery a tenth of a send.
    """
    queue = getattr(app.tasks.get(name), "queue_name", None)
    if not queue or any(options.get(place) for place in ("queue", "exchange", "routing_key")):
        return None
    return {"queue": queue, "declare": ()} if app.broker_is_redis else {"queue": queue}


def routes_alike(routes: Sequence[Any] | None) -> bool:
    """Whether a task's messages all go the same way by these routes, because no other router looks at them."""
    return all(getattr(one, "func", None) is route for one in routes or ())
