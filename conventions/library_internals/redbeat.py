"""What RedBeat does not document. What our scheduler overrides of it stands in `schedules/`, and has a seam test, too."""

from collections.abc import Callable
from typing import Any

from redbeat.schedulers import get_redis

client_of: Callable[[Any], Any] = get_redis  # the client of RedBeat's own, for an application


def use_client(app: Any, make: Callable[[], Any], prefix: str) -> None:
    """Let RedBeat use a client that is made so, unless it has one, and begin its keys with a prefix."""
    app.conf.update(redbeat_key_prefix=prefix)
    if getattr(app, "redbeat_redis", None) is None:
        app.redbeat_redis = make()


def token_of(lock: Any) -> str:
    """By which Redis knows who holds the lock of the beat that leads. It is redis-py's lock."""
    return str(lock.local.token.decode())
